"""What a run leaves when it ends: its adapter as PEFT reads it, and the base where it was made here."""

from pathlib import Path

from fedit.build import Job, make_base
from fedit.config import Lora, Plan
from fedit.core.messages import BASE, State
from fedit.files import whole_folder
from fedit.train.model import Base
from fedit.train.whole import save_whole


def deliver(job: Job, state: State, path: Path, lent: Base | None) -> list[str]:
    """Write `adapter/` into a run's folder, and `base/` beside it where there is no other; notes on them.

    `lent` is the base of the plan's model section, where it is loaded already.
    """
    job.adapted.load(state.public)
    source = job.base.source
    if source == "made":
        source = str(path.absolute() / "base")
        with whole_folder(path / "base") as folder:
            _save_base(job.plan, folder, lent)
    how = job.plan.adapter
    with whole_folder(path / "adapter") as folder:
        if BASE in state.public and isinstance(how, Lora):
            return [save_whole(job.adapted, state.public, how.scale, folder, source)]
        job.adapted.save(folder, source)
        return []


def _save_base(plan: Plan, folder: Path, lent: Base | None) -> None:
    """Write a base made on the spot as a model folder, without the adapter that now sits on it."""
    base, _ = make_base(plan, lent)
    base.model.save_pretrained(folder)  # type: ignore[operator]
    base.tokenizer.save_pretrained(folder)
