"""The server of a federation: loads the base, gathers its sites and drives the rounds of a recipe."""

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fedit import config
from fedit.build import make_base
from fedit.build.model import trains_base
from fedit.config import Plan
from fedit.core.amounts import part_of
from fedit.core.errors import InputError
from fedit.core.messages import Client
from fedit.engines.line import Line
from fedit.engines.sealed import Terms
from fedit.engines.sites import Sites
from fedit.federation.kit import Kit
from fedit.federation.terms import recipe_hash, shared
from fedit.files import write_atomically
from fedit.recipe import changed
from fedit.report.folder import RunFolder
from fedit.resuming import changes
from fedit.runner import Run
from fedit.train.model import Base, fingerprint

ENROLLED = "sites.json"
"""In the run's folder: its id, and the sites with the counts that they have enrolled with."""


def networked(plan: Plan) -> Plan:
    """The recipe as a server drives it: every site is a client. Raises InputError for what cannot be."""
    for key, value in (("data.holdout", plan.data.holdout), ("data.limit", plan.data.limit)):
        if value is not None:
            raise InputError(
                f"{key}: rows lie at the sites, so the server can set none aside; give data.test a source of "
                "the server's own, or leave it out"
            )
    if plan.federation.only:
        raise InputError(
            "federation.only: name the sites in what fedit provision reads; take it away"
        )
    if isinstance(plan.engine, config.Sites):
        return plan
    return changed(plan, {"engine": {"kind": "sites"}}, "recipe")


@contextmanager
def serving(kit: Kit, line: Line, plan: Plan, tell: Callable[[str, str], None]) -> Iterator[Run]:
    """An opened run over the sites of a kit, resumed where it was begun. Raises FeditError."""
    plan = networked(plan)
    how, path = plan.engine, Path(plan.folder)
    assert isinstance(how, config.Sites)
    begun = (path / "plan.yaml").exists()
    if begun:  # what has changed is refused before any site is invited
        changes(path, RunFolder(path, read_only=True).environment(), plan)
    lent: Base | None
    lent, _ = make_base(plan)
    mark, tree = fingerprint(lent.model), shared(plan)
    if trains_base(plan):  # whoever trains it needs one of its own: not two
        lent = None
    run, known, undo = _enrolled(path)
    terms = Terms(run, mark, recipe_hash(tree))
    sites = Sites(
        line,
        terms,
        tree,
        kit.key(),
        {site: kit.key_of(site) for site in kit.sites},
        how.deadline,
        plan.federation.weights != "uniform",
        tell,
    )
    sites.enrolled |= known
    sites.undo |= undo
    least = part_of(plan.federation.minimum, _cohort(plan, kit), up=True)
    sites.gather(how.wait, least, how.patience)
    if counts_members(plan):
        sites.only = frozenset(known or sites.enrolled)
        for late in sites.enrolled.keys() - sites.only:
            tell(late, f"comes too late for {plan.algorithm.name}, which counts its clients once")
    with Run(plan, resume=begun, lent=lent, elsewhere=sites) as opened:
        sites.algorithm = opened.job.algorithm
        sites.keep = lambda: _keep(path, run, sites)
        sites.keep()
        yield opened


def counts_members(plan: Plan) -> bool:
    """Whether the method knows its clients from the first round on, so that none may come later."""
    ranks = isinstance(plan.adapter, config.Lora) and plan.adapter.ranks is not None
    return ranks or plan.algorithm.name in ("scaffold", "feddyn", "afl", "external")


def _cohort(plan: Plan, kit: Kit) -> int:
    return part_of(plan.federation.cohort, len(kit.sites))


def _enrolled(path: Path) -> tuple[str, dict[str, Client], dict[str, list[int]]]:
    """The run's id, the sites that have enrolled before, what they must undo; a new id at the beginning."""
    try:
        found = json.loads((path / ENROLLED).read_text())
        known = {c: Client(c, *counts) for c, counts in found["sites"].items()}
        return found["run"], known, found["undo"]
    except FileNotFoundError:
        return secrets.token_hex(16), {}, {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path / ENROLLED}: damaged ({type(error).__name__}); restore it from a copy, or begin anew "
            "with another --output"
        ) from None


def _keep(path: Path, run: str, sites: Sites) -> None:
    known = {c.id: [c.examples, c.tokens] for c in sites.clients()}
    found = {"run": run, "sites": known, "undo": sites.undo}
    write_atomically(path / ENROLLED, json.dumps(found).encode())
