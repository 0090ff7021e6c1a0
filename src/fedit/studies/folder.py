"""The study folder: what was asked, one folder a run, and the summary."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedit.config import Study
from fedit.core.errors import InputError
from fedit.corpus import Corpus
from fedit.evaluate.stored import Scores, read_scores
from fedit.files import lock_folder, write_atomically
from fedit.personal import file_of
from fedit.recipe import differences, dump_plan, load_plan, load_study
from fedit.report.folder import RunFolder
from fedit.resuming import FREE as FREE_IN_RUNS
from fedit.studies.jobs import Job

FREE = ("seeds", "workers", "output", "tune", "tune_seeds", "tune_by", "dev")
"""Keys that may change on resume; seeds may only be added."""


class StudyFolder:
    """A study on disk, locked until closed."""

    def __init__(self, path: Path):
        self.path, self._lock = path, lock_folder(path)

    def close(self) -> None:
        """Give the lock back; a folder in which nothing was begun is taken away again."""
        if not any(path.name != ".lock" for path in self.path.iterdir()):
            (self.path / ".lock").unlink()
            self.path.rmdir()
        self._lock.close()

    def keep(self, study: Study, *, resume: bool) -> None:
        """Write `study.yaml`. Raises InputError for a folder in use, unless it is this study's to resume."""
        path = self.path / "study.yaml"
        if path.exists():
            if not resume:
                raise InputError(
                    f"output {self.path}: holds a study already; continue it with --resume "
                    "(resume=True in Python), or choose another --output"
                )
            _same_study(self.path, load_study(path), study)
        elif (self.path / "plan.yaml").exists():
            raise InputError(f"output {self.path}: holds a run; choose another --output")
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(path, dump_plan(study).encode())

    def read(self, name: str) -> dict[str, Any]:
        """What a JSON file in the folder holds; nothing where it is missing or damaged."""
        try:
            values: dict[str, Any] = json.loads((self.path / name).read_bytes())
        except (OSError, ValueError):
            return {}
        return values

    def write(self, name: str, values: dict[str, Any]) -> None:
        """Put a JSON file into the folder, atomically."""
        text = json.dumps(values, ensure_ascii=False, allow_nan=False, indent=1)
        write_atomically(self.path / name, (text + "\n").encode())


def finished(job: Job, corpus: Corpus) -> Scores | None:
    """The job's scores if it is done. Raises InputError for one done with another plan or other data."""
    if not job.folder.exists() or (scores := read_scores(job.folder)) is None:
        return None
    known = {(example.where, example.answer) for example in corpus.test}
    same_rows = all((item.where, item.reference) in known for item in scores.items)
    if job.kind != "base":
        done = load_plan(job.folder / "plan.yaml")
        changes = [
            line
            for line in differences(done, job.plan)
            if line.partition(":")[0] not in FREE_IN_RUNS
        ]
        if changes:
            raise InputError(
                f"{job.folder}: was run with another plan ({'; '.join(changes)}); take that back, or choose "
                "another --output"
            )
        if scores.round < job.plan.federation.rounds:
            return None
        if job.personal and any(
            not (job.folder / file_of(steps)).exists() for steps in job.personal.tune
        ):
            return None
        same_rows &= RunFolder(job.folder, read_only=True).environment()["data"] == corpus.hashes
    if not same_rows:
        raise InputError(
            f"{job.folder}: was run on other data than there is now; put the files back, or choose another "
            "--output"
        )
    return scores


def _same_study(path: Path, old: Study, new: Study) -> None:
    added = [name for name in new.arms if name not in old.arms]
    changed = [
        line
        for line in differences(old, new)
        if (key := line.partition(":")[0].split("."))[0] not in FREE
        and not (key[0] == "arms" and key[1] in added)
        and key[:2] != ["plan", "output"]
    ]
    if lost := _lost(old.seeds, new.seeds):
        changed.append(f"seeds: {lost} taken away")
    if changed:
        raise InputError(
            f"output {path}: was begun as another study, so it cannot be resumed with this one: "
            f"{'; '.join(changed)}. Take that back, or choose another --output (only seeds and arms may be "
            "added, and workers, dev and tune may change)"
        )


def _lost(old: Sequence[int], new: Sequence[int]) -> list[int]:
    return [seed for seed in old if seed not in new]
