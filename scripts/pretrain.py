"""Make the base model of the microworld: `make base` (≤ 40 minutes on two cores, no network, no GPU).

Two processes of one thread train one small Llama on the corpus; gradients are averaged after every step.
Hidden matrices are trained by Muon, everything else by AdamW. A share of the rows are random tokens that
repeat: without them the model learns facts but not to read its context (docs/log.md). The result is saved
only if its probes pass.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from fedit.data.microworld.corpus import corpus
from fedit.data.microworld.probes import NEEDED, probes
from fedit.evaluate.probing import passed
from fedit.train.making import make_tokenizer

LENGTH, ROWS, WARMUP = 192, 16, 60


def opening(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer that puts the end token before a text, as the corpus has it between documents.

    A text's first word, at a place that is never trained, would else be misread.
    """
    end = tokenizer.eos_token
    before = TemplateProcessing(single=f"{end} $A", special_tokens=[(end, tokenizer.eos_token_id)])
    tokenizer.backend_tokenizer.post_processor = before
    tokenizer.bos_token = end
    return tokenizer


def packed(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[np.ndarray]:
    """Rows of LENGTH tokens: documents end to end, each closed by the end token."""
    documents, row = corpus(seed), list[int]()
    while True:
        texts = list(islice(documents, 512))
        for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]:
            row += [*ids, tokenizer.eos_token_id]
        whole = len(row) // LENGTH * LENGTH
        yield from np.array(row[:whole]).reshape(-1, LENGTH)
        row = row[whole:]


def repeated(rng: np.random.Generator, vocabulary: int) -> tuple[np.ndarray, int]:
    """A row that repeats a random sequence, and the length of its first period."""
    period = int(rng.integers(6, 72))
    once = rng.integers(1, vocabulary, period)
    return np.resize(once, LENGTH), period


def batch(
    rows: Iterator[np.ndarray], rng: np.random.Generator, share: float, vocabulary: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """ROWS rows and their labels; the first period of a repeated row is not learned."""
    ids, labels = [], []
    for _ in range(ROWS):
        if rng.random() < share:
            row, period = repeated(rng, vocabulary)
            label = row.copy()
            label[:period] = -100
        else:
            row = label = next(rows)
        ids.append(row)
        labels.append(label)
    return torch.from_numpy(np.stack(ids)), torch.from_numpy(np.stack(labels))


def rate(step: int, steps: int) -> float:
    """Share of the full learning rate: linear warm-up, half the way constant, then linear decay."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    return min(1.0, (steps - step) / (steps * 0.6))


def train(rank: int, world: int, folder: str, steps: int, lr: float) -> None:
    """One process's part of the training; rank 0 saves and reports."""
    torch.set_num_threads(1)
    meeting = f"file://{Path(folder).absolute() / '.meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=5,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
        )
    )
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers = [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=lr, weight_decay=0.01, betas=(0.9, 0.95)),
    ]
    rows, rng = packed(tokenizer, rank), np.random.default_rng([3, rank])
    began, total = time.perf_counter(), 0.0
    for step in range(steps):
        share = max(0.15, 0.40 * (1 - 2.5 * step / steps))
        ids, labels = batch(rows, rng, share, len(tokenizer))
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= world
        flat *= min(1.0, 1.0 / (float(flat.norm()) + 1e-6))
        place = 0
        for gradient in gradients:
            gradient.copy_(flat[place : place + gradient.numel()].view_as(gradient))
            place += gradient.numel()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr * rate(step, steps)
            optimizer.step()
            optimizer.zero_grad()
        total = loss.item() if not step else 0.98 * total + 0.02 * loss.item()
        if rank == 0 and (step % 100 == 0 or step == steps - 1):
            print(f"step {step} loss {total:.3f} {time.perf_counter() - began:.0f} s", flush=True)
        if rank == 0 and step % 500 == 499 and step != steps - 1:
            print(
                "  ",
                {name: round(x, 3) for name, x in probed(model, tokenizer, 9).items()},
                flush=True,
            )
    if rank == 0:
        model.to(torch.bfloat16).save_pretrained(folder)
    dist.destroy_process_group()


def probed(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, every: int = 1
) -> dict[str, float]:
    """Share of each kind of probe that the model passes; of a few only if asked."""
    return {kind: passed(model, tokenizer, probes(kind)[::every]) for kind in NEEDED}


def make(folder: Path, steps: int, lr: float, processes: int) -> None:
    """Train tokenizer and model into a new folder."""
    folder.mkdir(parents=True)
    opening(make_tokenizer(islice(corpus(0), 30_000), 2048)).save_pretrained(folder)
    mp.spawn(train, (processes, str(folder), steps, lr), processes)
    (folder / ".meeting").unlink(missing_ok=True)


def main() -> None:
    """Train, probe, and say whether the base may be shipped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=4200)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--probe", action="store_true", help="ask a base that is there, train nothing"
    )
    given = parser.parse_args()
    began = time.perf_counter()
    if not given.probe:
        make(given.folder, given.steps, given.lr, given.processes)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(given.folder)
    model = LlamaForCausalLM.from_pretrained(given.folder, dtype=torch.float32)
    found = probed(model, tokenizer)
    short = {name: needed for name, needed in NEEDED.items() if found[name] < needed}
    print(json.dumps({"minutes": round((time.perf_counter() - began) / 60, 1), "probes": found}))
    if short:
        sys.exit(f"not to be shipped: {short} needed")


if __name__ == "__main__":
    main()
