"""An estimate for a person: one table."""

from rich.box import SIMPLE
from rich.table import Table

from fedit.estimating.estimate import Estimate
from fedit.report.words import duration, size

Row = tuple[str, str, str]
"""What, how much, and what is meant."""


def table(found: Estimate) -> Table:
    """Parameters, memory, work, traffic and time, a row each."""
    shown = Table(box=SIMPLE, show_header=False, pad_edge=False)
    shown.add_column(no_wrap=True)
    shown.add_column(justify="right", no_wrap=True)
    shown.add_column(style="dim")
    for part in (_parameters, _memory, _work, _traffic, _full, _time):
        for row in part(found):
            shown.add_row(*row)
        shown.add_section()
    return shown


def _parameters(found: Estimate) -> list[Row]:
    counts, kind = found.counts, found.plan.adapter.kind
    fewer = f"{1 - counts.share:.2%} fewer than the base"
    return [
        ("base", _short(counts.base), f"parameters ({counts.base:,})"),
        (
            "adapter",
            _short(counts.adapter),
            f"{kind}: {counts.adapter:,}, {counts.share:.3%}; {fewer}",
        ),
    ]


def _memory(found: Estimate) -> list[Row]:
    memory, plan = found.memory, found.plan
    precision = plan.model.quantise or plan.model.precision
    rows = [
        ("base weights", memory.base, f"{precision}, frozen" if memory.adapter else precision),
        (
            "adapter",
            memory.adapter + memory.gradients + memory.optimizer,
            f"with gradients and {plan.local.optimizer}'s state",
        ),
        ("activations", memory.activations, "of the largest micro-batch"),
        ("logits", memory.logits, "what of them stands at once, loss, backward pass"),
        ("evaluation", memory.evaluation, "of its largest batch, while nothing trains"),
        ("server", memory.server + memory.step, "sums in fp64, copies of the adapter, its step"),
        ("client", memory.home, "kept by one, as it was and as it will be"),
        ("shifted base", memory.shifted, "weights of the layers that the method adds to"),
        ("process", memory.process, "Python, libraries, data"),
        ("allocator", memory.allocator, "kept beside all this while real steps were timed"),
    ]
    free = "" if found.free is None else f"; {size(found.free)} are free"
    rows.append(("memory, peak", memory.peak, f"on {found.device}{free}"))
    if memory.homes:
        rows.append(("homes", memory.homes, "kept by all clients on disk, at most"))
    return [(name, size(count), what) for name, count, what in rows if count]


def _work(found: Estimate) -> list[Row]:
    rounds = found.plan.federation.rounds
    asked = f"{found.traffic.replies / rounds:,.4g} of {found.clients} clients, {rounds} rounds"
    times = found.per_token // found.counts.active
    how = f"{times}·N a token, N = {_short(found.counts.active)} without the input embedding"
    return [
        ("tokens a round", f"{found.traffic.tokens / rounds:,.0f}", asked),
        ("tokens", _short(found.traffic.tokens), "in all, padding not counted"),
        ("FLOPs a round", f"{found.flops / rounds:.2e}", how),
        ("FLOPs", f"{found.flops:.2e}", "in all, scoring not counted"),
    ]


def _traffic(found: Estimate) -> list[Row]:
    rounds, traffic = found.plan.federation.rounds, found.traffic
    return [
        (
            way,
            size(total),
            f"{size(total / traffic.replies)} a client, {size(total / rounds)} a round",
        )
        for way, total in (("bytes down", traffic.down), ("bytes up", traffic.up))
    ]


def _full(found: Estimate) -> list[Row]:
    both = found.full.down + found.full.up
    ratio = both / (found.traffic.down + found.traffic.up)
    rounds = found.plan.federation.rounds
    what = f"down and up in fp32, {size(both / rounds)} a round: {ratio:,.1f} times as much"
    return [("full weights", size(both), what)]


def _time(found: Estimate) -> list[Row]:
    hours = found.hours
    if hours is None:
        return [("time", "not timed", "")]
    rows = [
        ("loading", hours.loading, "libraries, data, tokens, base"),
        (
            "training",
            hours.training,
            f"{found.traffic.tokens / hours.training:,.0f} real tokens a second",
        ),
        ("server", hours.server, "combining, checkpoints"),
        (
            "evaluation",
            hours.evaluation,
            "held-out loss; answers (fedit evaluate) are not included",
        ),
        ("time in all", hours.total, "from about ten seconds of real steps on this machine"),
    ]
    return [(name, duration(count), what) for name, count, what in rows]


def _short(count: float) -> str:
    for unit in ("", "k", "M", "B"):
        if count < 1000:
            return f"{count:,.0f}" if not unit else f"{count:,.2f}{unit}"
        count /= 1000
    return f"{count:,.2f}T"
