"""Clients trained together against one after another: python benchmarks/stacked.py [--device cuda]

Tokens a second of eight clients' local steps, so many of them in one pass, by the rows of a local batch: a
tiny model, LoRA r=8 on every linear layer, random rows of 30 to 90 tokens. The numbers of clients take
turns; what is printed are medians, and how many times as fast as one after another that is.
"""

import argparse
import platform
import statistics
import time
import warnings
from datetime import date
from functools import partial

import numpy as np
import torch

from fedit.config import Local, Lora, Model
from fedit.core.fitting import Aim
from fedit.core.messages import Order
from fedit.train.adapters import attach
from fedit.train.encoded import Encoded
from fedit.train.forward import make_forward
from fedit.train.model import load_base
from fedit.train.sft import Imitation
from fedit.train.stacked import Together
from fedit.train.trainer import LocalTrainer

CONFIG = {
    "model_type": "llama",
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 384,
    "vocab_size": 2048,
}
CLIENTS, AT_ONCE, BATCHES = 8, (1, 2, 4, 8), (1, 2, 8)
CORPUS = ["we met at ten, had tea and read the paper; then it rained and we went home."] * 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=6, help="local steps of a client")
    parser.add_argument("--repetitions", type=int, default=5)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    base = load_base(Model(config=CONFIG, device=asked.device), CORPUS)
    adapted = attach(base.model, Lora(rank=8, alpha=16), 0)
    forward = make_forward(adapted.model, 0, base.device, fused=True)
    start, names = adapted.read(), frozenset(adapted.parameters)
    print(f"{date.today()}, {base.device}, {platform.machine()}, {torch.get_num_threads()} threads")
    heads = "".join(f"{n} at once".rjust(18) for n in AT_ONCE)
    print(f"rows  {heads}   tokens/s (× one at once)")
    for batch in BATCHES:
        rows = {f"c{k}": drawn(batch * asked.steps, k) for k in range(CLIENTS)}
        local = Local(steps=asked.steps, batch=batch, lr=1e-4)
        trainer = Together(LocalTrainer(adapted, rows, local, 1, forward, Imitation()))
        order = Order(0, 0, 0, {}, dict.fromkeys(rows, 1.0), names, names)
        fits = [partial(trainer.fit, client, order, start, Aim(), {}) for client in rows]
        tokens = sum(len(row.ids) for own in rows.values() for row in own)
        found: dict[int, list[float]] = {n: [] for n in AT_ONCE}
        for turn in range(-1, asked.repetitions):  # the first is for warming up
            for n in AT_ONCE:
                began = time.perf_counter()
                for first in range(0, CLIENTS, n):
                    trainer.lockstep.run(fits[first : first + n])
                if turn >= 0:
                    found[n].append(tokens / (time.perf_counter() - began))
        middle = {n: statistics.median(values) for n, values in found.items()}
        told = (f"{middle[n]:9.0f} ({middle[n] / middle[1]:5.2f})" for n in AT_ONCE)
        print(f"{batch:4d}  {''.join(one.rjust(18) for one in told)}")


def drawn(count: int, seed: int) -> list[Encoded]:
    """Random rows, of each of which the second half is learned."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(30, 90, count)
    return [
        Encoded(rng.integers(3, 250, n, dtype=np.int32), np.arange(n) >= n // 2) for n in lengths
    ]


if __name__ == "__main__":
    main()
