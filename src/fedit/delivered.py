"""What a run leaves when it ends: adapters as PEFT reads them, and the base where it was made here."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from fedit.build import Job, make_base
from fedit.config import Lora, Plan
from fedit.core.messages import ADAPTER, BASE, CLUSTER, Metrics, State, models
from fedit.files import whole_folder
from fedit.train.model import Base
from fedit.train.whole import save_whole


def deliver(
    job: Job, state: State, told: Mapping[str, Metrics], path: Path, lent: Base | None
) -> list[str]:
    """Write every global model's adapter into a run's folder, and a base made on the spot; notes on them.

    `adapter/` is the first model's, `adapter-cluster-1/` the next one's and so on. `told` is what clients
    measured in the last round, `lent` the base of the plan's model section where it is loaded already.
    """
    source = job.base.source
    if source == "made":
        source = str(path.absolute() / "base")
        with whole_folder(path / "base") as folder:
            _save_base(job.plan, folder, lent)
    notes, how, known = list[str](), job.plan.adapter, models(state.public)
    for cluster, model in reversed([*enumerate(known)]):  # the first last: the job's model holds it
        job.adapted.load({**state.public, ADAPTER: model})
        with whole_folder(path / folder_of(cluster)) as folder:
            if BASE in state.public and isinstance(how, Lora):
                notes.append(save_whole(job.adapted, state.public, how.scale, folder, source))
            else:
                job.adapted.save(folder, source)
    return notes + (_choices(len(known), told) if len(known) > 1 else [])


def folder_of(cluster: int) -> str:
    """The folder of one of several global models in that of the run."""
    return f"adapter-{CLUSTER}-{cluster}" if cluster else "adapter"


def _choices(clusters: int, told: Mapping[str, Metrics]) -> list[str]:
    chose = Counter(int(metrics[CLUSTER]) for metrics in told.values() if CLUSTER in metrics)
    by_model = ", ".join(f"{chose[k]} {folder_of(k)}/" for k in range(clusters))
    return [
        f"{clusters} global models; of the last round's {chose.total()} clients chose {by_model}"
    ]


def _save_base(plan: Plan, folder: Path, lent: Base | None) -> None:
    """Write a base made on the spot as a model folder, without the adapter that now sits on it."""
    base, _ = make_base(plan, lent)
    base.model.save_pretrained(folder)  # type: ignore[operator]
    base.tokenizer.save_pretrained(folder)
