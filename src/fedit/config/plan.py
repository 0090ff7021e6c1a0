"""The plan of a run: every section, and which of them go together."""

from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedit.config.algorithm import LORA_ONLY, MIXED_RANKS, REDRAWN, Algorithm, FedAvg, PFedMe
from fedit.config.compression import Compression, TopK
from fedit.config.data import Data, Iid, Partition, Template
from fedit.config.engine import Engine, InProcess
from fedit.config.model import Adapter, Lora, Model
from fedit.config.section import Section, named
from fedit.config.training import Evaluation, Federation, Gate, Local
from fedit.core.amounts import part_of


class Plan(Section):
    """Everything a run needs; the same plan and seed give the same adapter on one machine."""

    name: str = Field("run", pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    model: Model
    adapter: Adapter = Lora()
    data: Data
    template: Annotated[Template, named("name", "alpaca")] = Template()
    partition: Partition = Iid()
    federation: Federation = Federation()
    gate: Gate = Gate()
    local: Local = Local(epochs=1)
    algorithm: Algorithm = FedAvg()
    compression: Compression = Compression()
    evaluation: Evaluation = Evaluation()
    engine: Engine = InProcess()
    trackers: list[Literal["tensorboard", "wandb", "mlflow"]] = Field(default_factory=list)
    threads: int | None = Field(None, ge=1, le=4096)
    seed: int = Field(0, ge=0)
    output: Annotated[str, Field(pattern=r"^[^\x00]+$")] | None = None

    @model_validator(mode="after")
    def _possible(self) -> "Plan":
        if troubles := self._troubles():
            raise ValueError("; ".join(troubles))
        return self

    def _troubles(self) -> list[str]:
        fed, kind = self.federation, self.adapter.kind
        clients = len(fed.only) if fed.only else getattr(self.partition, "clients", None)
        counted = "clients in federation.only" if fed.only else "partition.clients"
        troubles = []
        if clients is not None and isinstance(fed.cohort, int) and fed.cohort > clients:
            troubles.append(
                f"federation.cohort {fed.cohort} is more than {counted} {clients}: lower it, "
                "or give a share such as 0.5"
            )
        if clients is not None and isinstance(fed.minimum, int) and isinstance(fed.cohort, float):
            cohort = part_of(fed.cohort, clients)
            if fed.minimum > cohort:
                troubles.append(
                    f"federation.minimum {fed.minimum} is more than the {cohort} clients that "
                    f"federation.cohort {fed.cohort} asks: lower it, or give a share such as 0.5"
                )
        if self.local.warmup >= fed.rounds:
            troubles.append(
                f"local.warmup {self.local.warmup} must be less than federation.rounds {fed.rounds}"
            )
        if kind in ("full", "bitfit") and (self.model.quantise or self.model.precision == "bf16"):
            troubles.append(
                f"adapter.kind {kind} trains base weights in fp32: drop model.quantise and "
                "model.precision bf16, or use adapter.kind lora"
            )
        if kind == "lora_xs" and self.model.quantise:
            troubles.append(
                f"adapter.kind lora_xs decomposes the base's weights, which model.quantise "
                f"{self.model.quantise} hides: drop it, or use adapter.kind lora"
            )
        if self.model.gradient_checkpointing and kind == "prefix":
            troubles.append(
                "adapter.kind prefix cannot run with model.gradient_checkpointing: drop one"
            )
        if self.local.objective == "dpo" and kind in ("full", "bitfit"):
            troubles.append(
                f"local.objective dpo compares with the base, of which adapter.kind {kind} leaves no copy: "
                "use an adapter beside it, such as adapter.kind lora"
            )
        if self.local.objective == "dpo" and self.template.train_on_inputs:
            troubles.append(
                "template.train_on_inputs changes nothing with local.objective dpo, whose prompts cancel "
                "out: drop it"
            )
        if self.evaluation.clients and not self.partition.validation:
            troubles.append("evaluation.clients needs partition.validation > 0, e.g. 0.1")
        return troubles + self._unfit() + self._incompressible() + self._unstackable()

    def _unfit(self) -> list[str]:
        """What the algorithm cannot be combined with."""
        name, kind, local = self.algorithm.name, self.adapter.kind, self.local
        lora = self.adapter if isinstance(self.adapter, Lora) else None
        troubles = []
        if name in LORA_ONLY and (lora is None or lora.dora):
            what = "adapter.dora" if lora else f"adapter.kind {kind}"
            troubles.append(
                f"algorithm {name} works on the factors of plain LoRA, not with {what}: use adapter.kind "
                "lora without dora, or another algorithm such as fedavg"
            )
        if name in ("fedex_lora", "flora") and self.model.quantise:
            troubles.append(
                f"algorithm {name} adds to the base's weights, which model.quantise {self.model.quantise} "
                "does not allow: drop it, or use another algorithm such as ffa_lora"
            )
        if name in REDRAWN and local.keep_optimizer:
            troubles.append(
                f"local.keep_optimizer keeps moments of the factors that a client had, but algorithm {name} "
                "makes other ones in every round: set it false, or use another algorithm such as hetlora"
            )
        if name == "feddpa" and self.template.train_on_inputs:
            troubles.append(
                "algorithm feddpa takes what is not learned for the prompt: set template.train_on_inputs "
                "false, or use another algorithm such as ditto"
            )
        if self.gate.factors is not None and lora is None:
            troubles.append(
                f"gate.factors is for LoRA's A and B, which adapter.kind {kind} has not: give gate.norm"
            )
        if name == "ifca" and self.gate != Gate():
            troubles.append(
                "gate bounds an update by what the client received, and with algorithm ifca that is every "
                "cluster's model: drop gate.norm, factors and times_median"
            )
        if name == "scaffold" and (
            local.optimizer != "sgd" or local.momentum or local.clip is not None
        ):
            troubles.append(
                "algorithm scaffold takes a client's way for its mean gradient, which holds for plain SGD, "
                f"not with local.optimizer {local.optimizer}, momentum {local.momentum:g} and clip "
                f"{local.clip}: set local.optimizer sgd, local.momentum 0 and local.clip null"
            )
        if isinstance(self.algorithm, PFedMe) and self.algorithm.strength * self.algorithm.lr > 1:
            troubles.append(
                f"algorithm.lr {self.algorithm.lr} times algorithm.strength {self.algorithm.strength} is "
                "more than 1, so each step would pass its aim: lower one"
            )
        if lora and lora.ranks and name not in MIXED_RANKS:
            troubles.append(
                f"adapter.ranks needs an algorithm that combines unlike ranks ({', '.join(MIXED_RANKS)}), "
                f"not {name}"
            )
        return troubles

    def _incompressible(self) -> list[str]:
        """What cannot travel in the planned short form."""
        name, up, down = self.algorithm.name, self.compression.up, self.compression.down
        troubles = []
        if down and getattr(self.adapter, "ranks", None):
            troubles.append(
                "compression.down packs what all clients receive, but with adapter.ranks each receives "
                "a part of its own: drop one (compression.up goes with adapter.ranks)"
            )
        sparse = [w for w, how in (("up", up), ("down", down)) if isinstance(how, TopK)]
        if name in REDRAWN:
            troubles += [
                f"compression.{way} topk sends later what it leaves out, but algorithm {name} makes other "
                "factors in every round, to which it does not belong: use kind int8 or int4"
                for way in sparse
            ]
        elif name == "fedex_lora" and "down" in sparse:
            troubles.append(
                "compression.down topk would leave out most of what algorithm fedex_lora writes into the "
                "base: use kind int8 or int4"
            )
        return troubles

    def _unstackable(self) -> list[str]:
        """Why clients cannot be trained together, as far as the plan tells."""
        together, one = getattr(self.engine, "together", 1), self.adapter
        if together == 1:
            return []
        why = []
        if not isinstance(one, Lora):
            why.append(f"not adapter.kind {one.kind}")
        elif one.dora or one.dropout:
            why.append("not adapter.dora" if one.dora else f"without adapter.dropout {one.dropout}")
        if self.model.kernels == "plain":
            why.append("not with model.kernels plain")
        return [
            f"engine.together {together} trains plain LoRA in one pass, {reason}: change that, or drop "
            "engine.together"
            for reason in why
        ]

    @property
    def folder(self) -> PurePath:
        """The run folder: `output`, else runs/<name>."""
        return PurePath(self.output or f"runs/{self.name}")
