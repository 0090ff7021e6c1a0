"""FedDPA: a global and an own adapter, mixed for every prompt anew (Yang et al., arXiv 2403.19211)."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from fedit.algorithms.fedavg import fedavg
from fedit.core.fitting import Fitter, Work
from fedit.core.messages import Home, Order
from fedit.core.seats import Algorithm
from fedit.core.seeds import generator
from fedit.core.sums import Sum
from fedit.core.tree import Tree, map_trees

PERSONAL = "personal"
"""Home role of a client's own adapter v."""


@dataclass(frozen=True, slots=True)
class Weighing:
    """The own adapter's weight α = `most` · mean cosine of a prompt and `samples` instructions of the client.

    A mean below 0 counts as 0, so that α is in [0, `most`]; the global adapter's weight is 1 − α. Texts are
    compared by the mean of the base's last hidden states; which instructions are taken follows from the
    run's seed. The authors' code compares texts through the client's own adapter.
    """

    samples: int = 5
    most: float = 0.5

    def examples(self, texts: Tensor, seed: int) -> Tensor:
        """So many of the client's texts [rows × width], or all where it has fewer."""
        rng = generator(seed, "feddpa")
        chosen = rng.permutation(len(texts))[: self.samples]
        return texts[torch.from_numpy(chosen)]

    def weights(self, prompts: Tensor, texts: Tensor, seed: int) -> Tensor:
        """α [prompts], fp64, of prompts [prompts × width] at a client with these texts [rows × width]."""
        some = _unit(self.examples(texts, seed))
        return (_unit(prompts) @ some.T).mean(1).clamp(0, 1) * self.most

    def mixture(self, prompt: Tensor, texts: Tensor, seed: int, general: Tree, own: Tree) -> Tree:
        """The adapter with which a client answers a prompt [width]: see `mixed`.

        `texts` [rows × width] are the client's own, `general` is w as received, `own` is v.
        """
        [weight] = self.weights(prompt[None], texts, seed).tolist()
        return mixed(weight, general, own)


def mixed(weight: float, general: Tree, own: Tree) -> Tree:
    """(1 − α) w + α v, parameter by parameter; exactly w where α is 0 and v where it is 1.

    The paper adds the adapters' outputs with these weights. v was trained from w, so on the way between
    them the parameters serve as well, and one adapter of the same size, of any kind, is the result.
    """
    if weight in (0.0, 1.0):
        return own if weight else general
    return map_trees(lambda w, v: (1 - weight) * w + weight * v, general, own)


@dataclass(frozen=True, slots=True)
class Twofold:
    """FedAvg's training, sent; then the client's own v, which starts at the first w received, kept.

    In the paper v trains with w's output beside it; here it trains alone, for as many steps, on batches of
    its own.
    """

    roles: tuple[str, ...] = ()

    def __call__(self, start: Tree, order: Order, home: Home, fit: Fitter) -> Work:
        found = fit(start)
        own = fit(home.payload.get(PERSONAL, start), again=PERSONAL)
        return Work(found, home={PERSONAL: own.fitted})


def feddpa(weighing: Weighing, variant: Literal["t", "f"] = "t") -> Algorithm[Sum]:
    """FedDPA-T, or FedDPA-F, whose v is trained from w once, when it is needed.

    The global adapter is FedAvg's, bit for bit. A client's own model is the mixture at the mean of α over
    its own texts.
    """

    def own(received: Tree, order: Order, home: Home, fit: Fitter) -> Tree:
        if variant == "f":
            personal = fit(received, again=PERSONAL).fitted
        else:
            personal = home.payload.get(PERSONAL, received)
        texts = fit.texts(received)
        weight = weighing.weights(texts, texts, order.seed).mean()
        return mixed(float(weight), received, personal)

    local = Twofold() if variant == "t" else fedavg().local
    return replace(fedavg(), name="feddpa", local=local, own=own)


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors.double(), dim=1)
