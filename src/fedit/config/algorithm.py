"""The federated method: each with its paper's parameters, the server's optimizer where it takes one."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator

from fedit.config.section import Section, named


class FedAvgM(Section):
    """FedAvg with momentum on the server (arXiv 1909.06335); β = 0 leaves a server's learning rate."""

    name: Literal["fedavgm"] = "fedavgm"
    lr: float = Field(1.0, gt=0)
    beta: float = Field(0.9, ge=0, lt=1)


class FedOpt(Section):
    """FedAvg with adaptive steps on the server (arXiv 2003.00295)."""

    name: Literal["fedadagrad", "fedyogi", "fedadam"]
    lr: float = Field(1e-2, gt=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.99, ge=0, lt=1)
    tau: float = Field(1e-3, gt=0)


Server = Annotated[FedAvgM | FedOpt, Field(discriminator="name"), named("name", "fedavgm")]


class _Mean(Section):
    """A method whose server moves to a mean: `server` may step there in another way."""

    server: Server | None = None


class FedAvg(_Mean):
    """FedAvg (arXiv 1602.05629)."""

    name: Literal["fedavg"] = "fedavg"


class FedProx(_Mean):
    """FedProx (arXiv 1812.06127) with its μ."""

    name: Literal["fedprox"]
    mu: float = Field(0.01, ge=0)


class Scaffold(_Mean):
    """SCAFFOLD (arXiv 1910.06378)."""

    name: Literal["scaffold"]


class FedNova(_Mean):
    """FedNova (arXiv 2007.07481)."""

    name: Literal["fednova"]


class FedDyn(Section):
    """FedDyn (arXiv 2111.04263) with its α."""

    name: Literal["feddyn"]
    alpha: float = Field(0.1, gt=0)


class FedSam(_Mean):
    """FedSAM (arXiv 2206.02618) with its radius ρ."""

    name: Literal["fedsam"]
    rho: float = Field(0.05, ge=0)


class Factors(_Mean):
    """FFA-LoRA (arXiv 2403.12313), RoLoRA (2502.01755) or FedSA-LoRA (2410.01463)."""

    name: Literal["ffa_lora", "rolora", "fedsa_lora"]


class Exact(Section):
    """FedEx-LoRA (arXiv 2410.09432) or FLoRA (2409.05976), which write into the base."""

    name: Literal["fedex_lora", "flora"]


class FlexLora(Section):
    """FlexLoRA (arXiv 2402.11505)."""

    name: Literal["flexlora"]


class HetLora(_Mean):
    """HetLoRA (arXiv 2401.06432); `by_norm` weighs factors by the norm of their product."""

    name: Literal["hetlora"]
    by_norm: bool = True


class FedRotLora(_Mean):
    """FedRot-LoRA (arXiv 2602.23638) with its λ."""

    name: Literal["fedrot_lora"]
    strength: float = Field(0.5, ge=0, le=1)


class QFedAvg(Section):
    """q-FedAvg (arXiv 1905.10497) with its q and L, by default 1 / local.lr, which presumes plain SGD.

    The paper's q go to 15; a loss to the power of hundreds is no number any more.
    """

    name: Literal["qfedavg"]
    q: float = Field(1.0, ge=0, le=20)
    lipschitz: float | None = Field(None, gt=0)


class Afl(_Mean):
    """AFL (arXiv 1902.00146) with its step γ."""

    name: Literal["afl"]
    gamma: float = Field(0.1, ge=0)


class Term(_Mean):
    """TERM (arXiv 2007.01162) with its tilt t."""

    name: Literal["term"]
    tilt: float = 1.0


class Ditto(_Mean):
    """Ditto (arXiv 2012.04221) with its λ."""

    name: Literal["ditto"]
    strength: float = Field(0.1, ge=0)


class FedDpa(_Mean):
    """FedDPA-T or -F (arXiv 2403.19211): own instructions compared, and the own adapter's largest weight."""

    name: Literal["feddpa"]
    variant: Literal["t", "f"] = "t"
    samples: int = Field(5, ge=1)
    most: float = Field(0.5, ge=0, le=1)


class PFedMe(Section):
    """pFedMe (arXiv 2006.08848) with λ, η, the number of inner loops and β."""

    name: Literal["pfedme"]
    strength: float = Field(15.0, ge=0)
    lr: float = Field(0.05, gt=0)
    loops: int = Field(1, ge=1)
    beta: float = Field(1.0, ge=0)


class PerFedAvg(_Mean):
    """Per-FedAvg (arXiv 2002.07948), first order, with the step α of adaptation."""

    name: Literal["perfedavg"]
    alpha: float = Field(0.01, ge=0)


class Apfl(_Mean):
    """APFL (arXiv 2003.13461) with the share α of the own part."""

    name: Literal["apfl"]
    alpha: float = Field(0.5, ge=0, le=1)


class Partial(_Mean):
    """FedPer (arXiv 1912.00818) or FedRep (2102.07078): names that hold one of `personal` are never sent."""

    name: Literal["fedper", "fedrep"]
    personal: list[str] = Field(min_length=1)

    @field_validator("personal")
    @classmethod
    def _parts(cls, personal: list[str]) -> list[str]:
        if any(not part.strip() for part in personal):
            raise ValueError(
                "an empty text is part of every name, so nothing would be shared: give parts of names, "
                "e.g. [lora_B]"
            )
        return personal


class Ifca(Section):
    """IFCA (arXiv 2006.04088): the number of clusters, and how far apart they start."""

    name: Literal["ifca"]
    clusters: int = Field(2, ge=1)
    spread: float = Field(0.1, gt=0)


class External(_Mean):
    """A method from another package: the name of its entry point in the group `fedit.algorithms`."""

    name: Literal["external"]
    entry: str = Field(min_length=1)
    options: dict[str, Any] = Field(default_factory=dict)


Algorithm = Annotated[
    FedAvg
    | FedAvgM
    | FedOpt
    | FedProx
    | Scaffold
    | FedNova
    | FedDyn
    | FedSam
    | Factors
    | Exact
    | FlexLora
    | HetLora
    | FedRotLora
    | QFedAvg
    | Afl
    | Term
    | Ditto
    | FedDpa
    | PFedMe
    | PerFedAvg
    | Apfl
    | Partial
    | Ifca
    | External,
    Field(discriminator="name"),
    named("name", "fedavg"),
]

KINDS: dict[str, type[Section]] = {
    name: kind
    for kind in get_args(get_args(Algorithm)[0])
    for name in get_args(kind.model_fields["name"].annotation)
}
"""A method's section by its name."""

NAMES: tuple[str, ...] = tuple(KINDS)
"""What `algorithm.name` may be."""

LORA_ONLY = (
    "ffa_lora",
    "rolora",
    "fedsa_lora",
    "fedex_lora",
    "flora",
    "flexlora",
    "hetlora",
    "fedrot_lora",
)
"""Methods that look into LoRA's factors."""

MIXED_RANKS = ("hetlora", "flexlora", "flora")
"""Methods whose clients may have adapters of unlike ranks."""

REDRAWN = ("flora", "flexlora")
"""Methods whose factors of one round are not those of the last, moved."""
