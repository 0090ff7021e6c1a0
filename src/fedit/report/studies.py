"""The page of a study: its summary, and the runs that lie in its folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedit.core.errors import InputError
from fedit.report import answers, claims, clients, costs, course, holdings, overview, settings
from fedit.report.blocks import TERMS, Page, Section
from fedit.report.holdings import Holdings
from fedit.report.runs import RunView, is_run, read_run
from fedit.report.summary import Answer, Cost, Scores, Summary, read
from fedit.report.words import duration, line


@dataclass(frozen=True)
class Study:
    """A study's folder as read: summary, file, every arm's runs by seed and client."""

    path: Path
    summary: Summary
    text: str
    runs: dict[str, dict[tuple[int, str], RunView]] = field(repr=False)
    base: Scores | None = field(repr=False)
    notes: list[str]

    def of(self, arm: str) -> list[RunView]:
        """All runs of an arm."""
        return list(self.runs.get(arm, {}).values())

    def kinds(self, kind: str) -> list[str]:
        """The names of the arms of a kind."""
        return [arm.name for arm in self.summary.arms if arm.kind == kind]

    def main(self) -> RunView | None:
        """The first run of the first federated arm."""
        return next((run for name in self.kinds("federated") for run in self.of(name)), None)


def is_study(path: Path) -> bool:
    """Whether a study was begun in this folder."""
    return (path / "summary.json").is_file() or (path / "study.yaml").is_file()


def read_study(path: Path) -> Study:
    """The study in a folder. Raises InputError where it has no usable summary."""
    again = f"go on with the study first: fedit study {path} --resume"
    if not (path / "summary.json").is_file():
        raise InputError(f"study {path}: has no summary.json, so it has not finished; {again}")
    summary = read(Summary, path / "summary.json", again)
    runs: dict[str, dict[tuple[int, str], RunView]] = {}
    notes: list[str] = []
    for arm in summary.arms:
        if arm.kind == "base":
            continue
        runs[arm.name] = {}
        for seed in summary.seeds:
            for client, folder in _folders(path / f"seed-{seed}" / arm.name):
                view = read_run(folder, scores=seed == summary.seeds[0])
                runs[arm.name][seed, client] = view
                notes += [f"{folder.relative_to(path)}: {note}" for note in view.notes]
        if not runs[arm.name]:
            notes.append(
                f"no run of {arm.name} lies in {path}: its curves and answers are left out"
            )
    base = None
    if any(arm.kind == "base" for arm in summary.arms) and (path / "base").is_dir():
        try:
            base = read(Scores, path / "base" / "scores.json", "run the study again")
        except InputError as error:
            notes.append(f"answers of the base are left out: {error}")
    file = path / "study.yaml"
    text = file.read_bytes().decode(errors="replace") if file.is_file() else ""
    return Study(path, summary, text, runs, base, notes)


def _folders(path: Path) -> list[tuple[str, Path]]:
    """An arm's run folders of one seed: the one itself, or one for each client."""
    if is_run(path):
        return [("", path)]
    found = sorted(path.iterdir()) if path.is_dir() else []
    return [(folder.name, folder) for folder in found if is_run(folder)]


def page(study: Study, held: Holdings, by: str | None, said: str) -> Page:
    """The whole page; `held` is the partition of the study's main run, `said` a word on it."""
    summary = study.summary
    headline, lead = claims.headline(summary)
    inks = overview.colours(summary.arms)
    main = study.main()
    label = main.plan.evaluation.by if main and main.plan else "category"
    lone, others = _single(study)
    arms = {name: study.of(name) for name in study.runs if study.of(name)}
    found: list[Section | None] = [
        overview.arms_section(summary),
        course.section(
            arms, inks, study.kinds("federated"), " Every arm sees about as many samples a round."
        ),
        holdings.section(held, by, said),
        clients.section(summary, lone, others, label),
        _answers(study, label),
        costs.section(_costs(study), _memory(arms), _machine(study, main)),
        settings.section(
            {"study.yaml": study.text, **({f"Plan of {main.name}": main.text} if main else {})},
            [main] if main else [],
        ),
    ]
    facts = [summary.date, f"{len(summary.seeds)} seeds" if len(summary.seeds) != 1 else "1 seed"]
    facts.append(f"{summary.items:,} questions")
    if summary.seconds:
        facts.append(duration(summary.seconds))
    return Page(
        line(summary.name),
        headline,
        lead,
        [line(fact) for fact in facts if fact],
        study.notes,
        TERMS,
        [section for section in found if section],
    )


def _single(study: Study) -> tuple[dict[str, RunView], dict[str, RunView]]:
    """The first seed's runs: those of lone clients by client, the others by arm."""
    lone: dict[str, RunView] = {}
    others: dict[str, RunView] = {}
    for arm, runs in study.runs.items():
        for (seed, client), run in runs.items():
            if seed == study.summary.seeds[0]:
                (lone if client else others)[client or arm] = run
    return lone, others


def _answers(study: Study, label: str) -> Section | None:
    """Answers of the first seed: of several runs of an arm, those of the one with the best EM."""
    found: dict[str, Sequence[Answer]] = {}
    which = []
    for arm in study.summary.arms:
        if arm.kind == "base":
            found[arm.name] = study.base.items if study.base else []
            continue
        runs = {c: r for (s, c), r in study.runs[arm.name].items() if s == study.summary.seeds[0]}
        scored = {client: run.scores.items for client, run in runs.items() if run.scores}
        if not scored:
            continue
        best = max(scored, key=lambda client: sum(item.correct for item in scored[client]))
        name = f"{arm.name} ({best})" if best else arm.name
        found[name] = scored[best]
        if best and len(scored) > 1:
            which.append(f"{line(arm.name)} is shown by its best run, {line(best)}.")
    judge = next((name for name in study.kinds("federated") if name in found), "")
    chosen = judge or next(iter(found), "")
    return answers.section(found, chosen, label, " ".join(["All from the first seed.", *which]))


def _costs(study: Study) -> list[Cost]:
    """The summary's costs; who trains alone or has all the data sends nothing, whatever was counted."""
    silent = {arm.name for arm in study.summary.arms if arm.kind != "federated"}
    none = {"bytes_up": None, "bytes_down": None}
    return [c.model_copy(update=none) if c.arm in silent else c for c in study.summary.cost]


def _memory(arms: Mapping[str, Sequence[RunView]]) -> dict[str, float]:
    return {name: most for name, runs in arms.items() if (most := costs.peak(runs)) is not None}


def _machine(study: Study, main: RunView | None) -> list[str]:
    known = ", ".join(f"{name} {value}" for name, value in study.summary.machine.items())
    return [
        line(f"The study ran on: {known}.", 300) if known else "",
        costs.machine(main.environment if main else {}),
    ]
