"""Local training against the usual ways and the limit: python benchmarks/training.py [--shape tiny]

Real Alpaca rows ($FEDIT_SHARED or ../shared), LoRA r=8 on q, k, v, o, batches of 8, rows of at most 512
tokens. The ways take turns; what is printed are medians of real tokens a second, padding not counted. The
last way is whole rounds of a run with as many one-thread workers as there are cores, six clients a round.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from fedit import Run, make_plan
from fedit.config import Local, Lora
from fedit.core.fitting import Aim
from fedit.core.messages import Order
from fedit.data.sources import read_source
from fedit.train.adapters import Adapted, attach
from fedit.train.batches import collate
from fedit.train.encoded import Encoded
from fedit.train.forward import make_forward
from fedit.train.making import make_model, make_tokenizer
from fedit.train.prompts import Encoder
from fedit.train.sft import Imitation
from fedit.train.templates import ALPACA
from fedit.train.trainer import LocalTrainer

SHAPES = {
    "135M": {
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "vocab_size": 8192,
    },
    "tiny": {
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 384,
        "vocab_size": 2048,
    },
}
LORA = Lora(rank=8, alpha=16, targets=["q_proj", "k_proj", "v_proj", "o_proj"])
ROWS = "data/alpaca/alpaca_en_1k.json"
BATCH, CPU = 8, torch.device("cpu")
Way = Callable[[Sequence[Encoded]], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="135M")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="batches of a client and way")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    shared = Path(os.environ.get("FEDIT_SHARED", "../shared"))
    examples = read_source(str(shared / ROWS)).examples
    texts = (turn.text + " " + turn.context for one in examples for turn in one.turns)
    tokenizer = make_tokenizer(texts, SHAPES[asked.shape]["vocab_size"])
    rows = Encoder(tokenizer, ALPACA, 512).encode_all(examples).encoded
    pad, cores = tokenizer.pad_token_id, torch.get_num_threads()

    def adapted(precision: torch.dtype) -> Adapted:
        model = make_model({"model_type": "llama", **SHAPES[asked.shape]}, tokenizer)
        return attach(model.to(precision), LORA, 0)

    ways: dict[str, Way] = {
        "Trainer anew for each client, fp32": trainer_each_time(adapted(torch.float32), pad),
        "careful loop, bf16, like lengths": careful(adapted(torch.bfloat16), pad),
        "fedit, kernels: plain, fp32": ours(adapted(torch.float32), pad, fused=False),
        "fedit, fp32": ours(adapted(torch.float32), pad),
        "fedit, bf16": ours(adapted(torch.bfloat16), pad),
    }
    folder = tempfile.mkdtemp()
    tokenizer.save_pretrained(f"{folder}/tokenizer")
    run = open_run(asked, str(shared / ROWS), folder)
    rounds, whole = run.rounds(), f"fedit run, bf16, {run.plan.engine.processes} workers"
    next(rounds)  # the untrained start
    size = sum(p.numel() for p in adapted(torch.float32).model.parameters()) - vocabulary(
        asked.shape
    )
    print(f"{date.today()}, {platform.processor() or platform.machine()}, {cores} threads")
    found: dict[str, list[float]] = {name: [] for name in (*ways, whole)}
    rates = []
    for turn in range(-1, asked.repetitions):  # the first is for warming up
        mine = rows[BATCH * asked.steps * (turn + 1) :][: BATCH * asked.steps]
        tokens = sum(len(row.ids) for row in mine)
        rates.append(products_a_second(SHAPES[asked.shape]))
        for name, way in ways.items():
            began = time.perf_counter()
            way(mine)
            if turn >= 0:
                found[name].append(tokens / (time.perf_counter() - began))
        began = time.perf_counter()
        trained = next(rounds).record["tokens"]
        if turn >= 0:
            found[whole].append(trained / (time.perf_counter() - began))
    run.__exit__()
    limit = statistics.median(rates) / (4 * size)
    usual = statistics.median(next(iter(found.values())))
    print(
        f"bf16 products: {statistics.median(rates) / 1e9:.0f} GFLOPS; 4 FLOPs a parameter and token"
    )
    print(f"{'':38s} tok/s  × the first  of the limit")
    for name, values in found.items():
        middle = statistics.median(values)
        print(f"{name:38s} {middle:5.0f} {middle / usual:9.2f} {middle / limit:12.0%}")
    agreement(adapted, rows[: BATCH * 4], pad)


def open_run(asked: argparse.Namespace, rows: str, folder: str) -> Run:
    """A run of the same shape on the same rows, its clients on workers."""
    plan = {
        "model": {
            "config": {"model_type": "llama", **SHAPES[asked.shape]},
            "tokenizer": f"{folder}/tokenizer",
            "precision": "bf16",
        },
        "adapter": LORA.model_dump(),
        "data": {"train": rows, "holdout": {"size": 8}},
        "partition": {"by": "iid", "clients": 6},
        "federation": {"rounds": asked.repetitions + 2},
        "local": {"steps": asked.steps, "batch": BATCH, "lr": 1e-4},
        "evaluation": {"every": 1000},
        "engine": {"kind": "workers", "processes": os.cpu_count()},
        "output": f"{folder}/run",
    }
    return Run(make_plan(plan))


def vocabulary(shape: str) -> int:
    """Parameters of the token embedding, which is looked up and not multiplied."""
    return SHAPES[shape]["vocab_size"] * SHAPES[shape]["hidden_size"]


def trainer_each_time(one: Adapted, pad: int) -> Way:
    """What most federated scripts do: transformers' Trainer, made anew, a loss on all tokens."""
    from transformers import PrinterCallback, Trainer, TrainingArguments

    def padded(rows: list[Encoded]) -> dict[str, torch.Tensor]:
        batch = collate(rows, pad)
        labels = batch.ids.masked_fill(batch.attention == 0, -100)
        return {"input_ids": batch.ids, "attention_mask": batch.attention, "labels": labels}

    def way(rows: Sequence[Encoded]) -> None:
        arguments = TrainingArguments(
            output_dir="build/trainer",
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            learning_rate=1e-4,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            remove_unused_columns=False,
        )
        trainer = Trainer(one.model, arguments, data_collator=padded, train_dataset=list(rows))
        trainer.remove_callback(PrinterCallback)
        trainer.train()

    return way


def careful(one: Adapted, pad: int) -> Way:
    """A plain loop by a person who knows: frozen base in bf16, rows of like length together."""
    optimizer = torch.optim.AdamW(list(one.parameters.values()), lr=1e-4)
    one.model.train()

    def way(rows: Sequence[Encoded]) -> None:
        rows = sorted(rows, key=lambda row: len(row.ids))
        for first in range(0, len(rows), BATCH):
            batch = collate(rows[first : first + BATCH], pad)
            labels = batch.ids.masked_fill(torch.from_numpy(~batch.learn), -100)
            one.model(
                input_ids=batch.ids, attention_mask=batch.attention, labels=labels
            ).loss.backward()
            nn.utils.clip_grad_norm_(list(one.parameters.values()), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return way


def supervised(one: Adapted, pad: int, rows: Sequence[Encoded], fused: bool) -> LocalTrainer:
    forward = make_forward(one.model, pad, CPU, fused=fused)
    plan = Local(epochs=1, batch=BATCH, lr=1e-4)
    return LocalTrainer(one, {"client": rows}, plan, 1, forward, Imitation())


def ours(one: Adapted, pad: int, fused: bool = True) -> Way:
    start, names = one.read(), frozenset(one.parameters)
    usual = supervised(one, pad, (), fused)  # a run makes it once

    def way(rows: Sequence[Encoded]) -> None:
        trainer = replace(usual, examples={"client": rows})
        trainer.fit("client", Order(0, 0, 0, {}, {"client": 1.0}, names, names), start, Aim(), {})

    return way


def agreement(adapted: Callable[[torch.dtype], Adapted], rows: Sequence[Encoded], pad: int) -> None:
    """How far loss and adapter are from padded fp32 after the same steps."""
    results = []
    for precision, fused in ((torch.float32, False), (torch.float32, True), (torch.bfloat16, True)):
        one = adapted(precision)
        start, names = one.read(), frozenset(one.parameters)
        order = Order(0, 0, 0, {}, {"client": 1.0}, names, names)
        fit = supervised(one, pad, rows, fused).fit("client", order, start, Aim(), {})
        moved = torch.cat([(t - start[n]).flatten() for n, t in fit.fitted.items()])
        results.append((fit.metrics["loss"], moved))
    (loss, wanted), *others = results
    for name, (found, moved) in zip(("fp32", "bf16"), others, strict=True):
        off = float((moved - wanted).norm() / wanted.norm())
        print(
            f"{name} against padded fp32: loss off by {abs(found / loss - 1):.1e}, steps by {off:.1e}"
        )


def products_a_second(shape: dict[str, int]) -> float:
    """FLOPs a second of the shape's largest product in bf16, the best of several."""
    left = torch.randn(2048, shape["hidden_size"], dtype=torch.bfloat16)
    right = torch.randn(shape["intermediate_size"], shape["hidden_size"], dtype=torch.bfloat16)
    best = min(timed(lambda: F.linear(left, right)) for _ in range(20))
    return 2 * 2048 * right.numel() / best


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
