"""What the journal says of a round, and a run's folder of its surroundings: JSON values only."""

import platform
import resource
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch

from fedit.build import Job
from fedit.core.messages import Metrics
from fedit.core.rounds import Round
from fedit.evaluate.fairness import fairness
from fedit.evaluate.loss import Loss
from fedit.evaluate.pairs import Ranking
from fedit.train.model import fingerprint

Record = dict[str, Any]


def round_record(done: Round, seconds: float) -> Record:
    """A round for the journal: cohort, weights, losses, bytes, failures, seconds."""
    replied = done.metrics.values()
    sums = {
        key: sum(m.get(key, 0.0) for m in replied)
        for key in ("seconds", "tokens", "bytes_down", "bytes_up")
    }
    train = sums["seconds"]
    return {
        "round": done.state.round,
        "attempt": done.order.attempt,
        "cohort": list(done.order.cohort),
        "weights": dict(done.order.weights),
        **done.told,
        "loss": None,
        **_means(list(replied)),
        "tokens": sums["tokens"],
        "bytes_down": sums["bytes_down"],
        "bytes_up": sums["bytes_up"],
        "clients": done.metrics,
        "failures": [
            {"client": f.client, "reason": f.reason, "detail": f.detail} for f in done.failures
        ],
        "seconds": {"round": seconds, "train": train, "server": max(0.0, seconds - train)},
    }


def _means(replied: Sequence[Metrics]) -> dict[str, float]:
    """The loss, of pairs also accuracy and margin, over all terms of those who tell it: tokens, or pairs."""
    means = {}
    for key in ("loss", "accuracy", "margin"):
        told = [(m[key], m.get("pairs", m.get("supervised", 0.0))) for m in replied if key in m]
        if total := sum(n for _, n in told if n > 0):  # a claim like any other
            means[key] = sum(value * n for value, n in told if n > 0) / total
    return means


def loss_record(loss: Loss) -> Record:
    """A loss for the journal; infinity and NaN, which JSON lacks, become null."""
    return _finite({"loss": loss.mean, "perplexity": loss.perplexity, "tokens": loss.tokens})


def ranking_record(ranking: Ranking) -> Record:
    """Held-out pairs for the journal: loss, accuracy, margin, and how many."""
    return _finite(ranking.means())


def _finite(values: Record) -> Record:
    return {k: v if v == v and abs(v) != float("inf") else None for k, v in values.items()}


MEASURES = ("loss", "exact_match", "token_f1")
"""What groups and clients are scored by: of a loss high is bad, of the others low."""


def fairness_record(scored: Mapping[str, Record]) -> Record:
    """How even scores by group or client are, for each measure they have; nothing below two of them."""
    measured = {}
    for measure in MEASURES:
        values = {name: part[measure] for name, part in scored.items() if measure in part}
        if found := fairness(values, losses=measure == "loss"):
            measured[measure] = asdict(found)
    return measured


def numbers_of(record: Record, prefix: str = "") -> dict[str, float]:
    """The record's numbers by path ("evaluation/loss"), for trackers; clients' own are left out,
    how even these are is not."""
    numbers: dict[str, float] = {}
    for key, value in record.items():
        own = key in ("clients", "weights") and not prefix.endswith("fairness/")
        if isinstance(value, dict) and not own:
            numbers |= numbers_of(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and key not in ("round", "time"):
            numbers[prefix + key] = float(value)
    return numbers


def environment(job: Job) -> Record:
    """Versions, threads and hashes under which a run's bits hold."""
    names = ("fedit", "torch", "transformers", "peft", "tokenizers", "numpy", "safetensors")
    return {
        "run": uuid.uuid4().hex,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "device": str(job.base.device),
        "versions": {name: version(name) for name in names},
        "data": job.hashes,
        "base": fingerprint_of_base(job),
        "algorithm": job.algorithm.name,
        "parameters": {
            "trained": sum(p.numel() for p in job.adapted.parameters.values()),
            "all": sum(p.numel() for p in job.adapted.model.parameters()),
        },
        "clients": {client.id: client.examples for client in job.engine.clients()},
        "command": sys.argv,
    }


def fingerprint_of_base(job: Job) -> str:
    """sha256 of the parameters that no adapter trains."""
    return fingerprint(job.adapted.model, skip=job.adapted.parameters.values())


def peak_memory_mib() -> float:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
