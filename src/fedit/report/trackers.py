"""Experiment trackers behind one small seam: numbers by name, once a round."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from fedit.core.errors import InputError


class Tracker(Protocol):
    """Receives the numbers of each finished round."""

    def log(self, round: int, numbers: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files under `folder/tensorboard`."""

    def __init__(self, folder: Path, name: str, plan: Mapping[str, Any]):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, round: int, numbers: Mapping[str, float]) -> None:
        for key, value in numbers.items():
            self._writer.add_scalar(key, value, round)

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A Weights & Biases run, its files under `folder/wandb`; WANDB_MODE=offline keeps it on this machine."""

    def __init__(self, folder: Path, name: str, plan: Mapping[str, Any]):
        import wandb

        self._run = wandb.init(project="fedit", name=name, dir=str(folder), config=dict(plan))

    def log(self, round: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=round)

    def close(self) -> None:
        self._run.finish()


class Mlflow:
    """An MLflow run at MLFLOW_TRACKING_URI, else in `folder/mlflow.db`."""

    def __init__(self, folder: Path, name: str, plan: Mapping[str, Any]):
        import os

        import mlflow

        if "MLFLOW_TRACKING_URI" not in os.environ:
            mlflow.set_tracking_uri(f"sqlite:///{folder.absolute()}/mlflow.db")
        self._mlflow = mlflow
        mlflow.set_experiment("fedit")
        mlflow.start_run(run_name=name)
        mlflow.log_dict(dict(plan), "plan.json")

    def log(self, round: int, numbers: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(numbers), step=round)

    def close(self) -> None:
        self._mlflow.end_run()


def open_tracker(name: str, folder: Path, run: str, plan: Mapping[str, Any]) -> Tracker:
    """The tracker of that name. Raises InputError naming the extra to install where it is missing."""
    kinds: dict[str, type[TensorBoard] | type[Wandb] | type[Mlflow]] = {
        "tensorboard": TensorBoard,
        "wandb": Wandb,
        "mlflow": Mlflow,
    }
    try:
        return kinds[name](folder, run, plan)
    except ImportError as error:
        raise InputError(
            f"trackers: {name} is not installed ({error}); pip install 'fedit[{name}]'"
        ) from None
