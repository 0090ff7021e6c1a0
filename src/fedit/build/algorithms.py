"""A plan's algorithm."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import numpy as np

from fedit.algorithms.afl import afl
from fedit.algorithms.apfl import apfl
from fedit.algorithms.ditto import ditto
from fedit.algorithms.exactness import measured
from fedit.algorithms.fedavg import Replace, fedavg
from fedit.algorithms.fedavgm import Momentum
from fedit.algorithms.feddpa import Weighing, feddpa
from fedit.algorithms.feddyn import feddyn
from fedit.algorithms.fedex_lora import fedex_lora
from fedit.algorithms.fednova import fednova
from fedit.algorithms.fedopt import Adaptive
from fedit.algorithms.fedprox import fedprox
from fedit.algorithms.fedrep import fedper, fedrep
from fedit.algorithms.fedrot_lora import fedrot_lora
from fedit.algorithms.fedsa_lora import fedsa_lora
from fedit.algorithms.fedsam import fedsam
from fedit.algorithms.ffa_lora import ffa_lora
from fedit.algorithms.flexlora import flexlora
from fedit.algorithms.flora import flora
from fedit.algorithms.hetlora import hetlora
from fedit.algorithms.ifca import ifca
from fedit.algorithms.perfedavg import perfedavg
from fedit.algorithms.pfedme import pfedme
from fedit.algorithms.qfedavg import qfedavg
from fedit.algorithms.ranks import with_ranks
from fedit.algorithms.rolora import rolora
from fedit.algorithms.scaffold import scaffold
from fedit.algorithms.term import term
from fedit.config import Lora, Plan
from fedit.config.algorithm import External, FedAvgM, FedOpt
from fedit.core.errors import InputError, brief
from fedit.core.messages import Client
from fedit.core.seats import Algorithm, nothing
from fedit.core.seeds import generator


def make_algorithm(plan: Plan, population: Sequence[Client]) -> Algorithm[Any]:
    """The planned algorithm for this population, the same on workers. Raises InputError."""
    algorithm = _method(plan, population)
    if how := getattr(plan.algorithm, "server", None):
        algorithm = replace(algorithm, server=_stepping(how, algorithm.server))
    lora = plan.adapter if isinstance(plan.adapter, Lora) else None
    if lora and lora.ranks:
        algorithm = with_ranks(algorithm, _ranks(plan, population), lora.rank)
    summed = algorithm.combine.linear and algorithm.measure is nothing  # else its total is its own
    if lora and not lora.dora and plan.evaluation.exactness and summed:
        algorithm = measured(algorithm, lora.scale)
    return algorithm


def _method(plan: Plan, population: Sequence[Client]) -> Algorithm[Any]:
    how: Any = plan.algorithm
    lora = plan.adapter if isinstance(plan.adapter, Lora) else Lora()
    match how.name:
        case "fedavg":
            return fedavg()
        case "fedavgm" | "fedadagrad" | "fedyogi" | "fedadam":
            return replace(fedavg(), name=how.name, server=_stepping(how, Replace()))
        case "fedprox":
            return fedprox(how.mu)
        case "scaffold":
            return scaffold(len(population))
        case "fednova":
            return fednova()
        case "feddyn":
            return feddyn(how.alpha, len(population))
        case "fedsam":
            return fedsam(how.rho)
        case "ffa_lora":
            return ffa_lora()
        case "rolora":
            return rolora()
        case "fedsa_lora":
            return fedsa_lora()
        case "fedex_lora":
            return fedex_lora(lora.scale)
        case "flora":
            return flora(lora.scale)
        case "flexlora":
            return flexlora()
        case "hetlora":
            return hetlora(lora.rank, how.by_norm)
        case "fedrot_lora":
            return fedrot_lora(how.strength)
        case "qfedavg":
            return qfedavg(how.q, how.lipschitz or 1 / plan.local.lr)
        case "afl":
            return afl(how.gamma, {client.id: client.examples for client in population})
        case "term":
            return term(how.tilt)
        case "ditto":
            return ditto(how.strength)
        case "feddpa":
            return feddpa(Weighing(how.samples, how.most), how.variant)
        case "pfedme":
            return pfedme(how.strength, how.lr, how.loops, how.beta)
        case "perfedavg":
            return perfedavg(how.alpha)
        case "apfl":
            return apfl(how.alpha)
        case "fedper":
            return fedper(how.personal)
        case "fedrep":
            return fedrep(how.personal)
        case "ifca":
            return ifca(how.clusters, how.spread, plan.seed)
        case "external":
            return _external(how, population)
    raise AssertionError(how.name)  # the plan was checked


def entries() -> dict[str, EntryPoint]:
    """The methods of other installed packages, by name."""
    return {entry.name: entry for entry in entry_points(group="fedit.algorithms")}


def entry_of(how: External) -> EntryPoint:
    """The installed entry point of that name. Raises InputError where there is none."""
    known = entries()
    if how.entry not in known:
        there = ", ".join(sorted(known)) or "none"
        raise InputError(
            f"algorithm.entry: no installed package has an entry point {how.entry!r} in the group "
            f"fedit.algorithms (there are: {there}); install the package, or mend the name"
        )
    return known[how.entry]


def _external(how: External, population: Sequence[Client]) -> Algorithm[Any]:
    """What an installed package's entry point makes of the population and the plan's options."""
    entry = entry_of(how)
    try:
        made = entry.load()(population, **how.options)
    except Exception as error:  # another package may raise anything
        raise InputError(
            f"algorithm.entry {how.entry}: cannot be made with options {how.options} ({brief(error)}); see "
            "that package's documentation"
        ) from None
    if not isinstance(made, Algorithm):
        raise InputError(
            f"algorithm.entry {how.entry}: gives a {type(made).__name__}, not a fedit Algorithm"
        )
    return made


def _stepping(how: FedAvgM | FedOpt, inner: Any) -> Any:
    if isinstance(how, FedAvgM):
        return Momentum(how.lr, how.beta, inner)
    kind: Any = how.name.removeprefix("fed")
    return Adaptive(kind, how.lr, how.beta1, how.beta2, how.tau, inner)


def _ranks(plan: Plan, population: Sequence[Client]) -> dict[str, int]:
    """Each client's rank: tiers in the order of size, or of a draw from the run's seed."""
    assert isinstance(plan.adapter, Lora)
    assert plan.adapter.ranks is not None
    how, clients = plan.adapter.ranks, list(population)
    if how.by == "size":
        clients.sort(key=lambda client: client.examples)
    else:
        order = generator(plan.seed, "ranks").permutation(len(clients))
        clients = [clients[place] for place in order]
    shares = np.array(how.shares or [1.0] * len(how.tiers))
    ends = np.round(np.cumsum(shares) / shares.sum() * len(clients)).astype(int)
    tiers = np.searchsorted(ends, np.arange(len(clients)), side="right")
    return {client.id: how.tiers[tier] for client, tier in zip(clients, tiers, strict=True)}
