"""Parts of a frozen transformer with backward passes of their own: less memory traffic, the same numbers.

A frozen weight needs no gradient, so nothing is kept for one; products with LoRA's thin factors run in the
base's precision while the gradients of the factors stay in fp32 (arXiv 2106.09685).
"""

from types import MethodType
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F


class GatedMLP(Function):
    """y = (silu(x Wgᵀ) · x Wuᵀ) Wdᵀ with frozen weights (SwiGLU, arXiv 2002.05202)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:  # noqa: D102
        g, u = F.linear(x, gate), F.linear(x, up)
        ctx.save_for_backward(g, u, gate, up, down)
        return F.linear(F.silu(g).mul_(u), down)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        g, u, gate, up, down = ctx.saved_tensors
        dh = dy @ down
        du = F.silu(g).mul_(dh)
        dg = torch.ops.aten.silu_backward(dh.mul_(u), g)
        dx = _flat(dg) @ gate
        dx.addmm_(_flat(du), up)
        return dx.view(*dy.shape[:-1], -1), None, None, None


class SiluProduct(Function):
    """y = silu(g) · u: the middle of a gated MLP whose linear layers carry adapters."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, u: Tensor) -> Tensor:  # noqa: D102
        ctx.save_for_backward(g, u)
        return F.silu(g).mul_(u)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        g, u = ctx.saved_tensors
        return torch.ops.aten.silu_backward(dy * u, g), F.silu(g).mul_(dy)


class RMSNorm(Function):
    """y = w · x / √(mean x² + ε) over the last dimension, with a frozen w (arXiv 1910.07467)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:  # noqa: D102
        wide = x.float()
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        r = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, r)
        y: Tensor = (wide * r).to(x.dtype) * weight
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        x, weight, r = ctx.saved_tensors
        n = x * r  # fp32
        g = (dy * weight).float()
        share = torch.linalg.vecdot(g, n).unsqueeze(-1).div_(x.shape[-1])
        return n.mul_(share).sub_(g).mul_(r.neg()).to(x.dtype), None, None


class Lora(Function):
    """y = x Wᵀ + b + s (x Aᵀ) Bᵀ with frozen W and b (arXiv 2106.09685, section 4.1).

    A [r × in] and B [out × r] are fp32 and so are their gradients; products run in the precision of x.
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, s: float
    ) -> Tensor:
        flat, near, far = _flat(x), a.to(x.dtype), (b * s).to(x.dtype)
        h = flat @ near.T
        y = F.linear(flat, weight, bias).addmm_(h, far.T)
        ctx.save_for_backward(flat, weight, h, near, far)
        ctx.scale = s
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        x, weight, h, near, far = ctx.saved_tensors
        flat = _flat(dy)
        dh = flat @ far
        dx = da = db = None
        if ctx.needs_input_grad[0]:
            dx = (flat @ weight).addmm_(dh, near).view(*dy.shape[:-1], -1)
        if ctx.needs_input_grad[3]:
            da = dh.float().T @ x.float()
        if ctx.needs_input_grad[4]:
            db = (h.float().T @ flat.float()).T * ctx.scale
        return dx, None, None, da, db, None


def lora_layers(model: nn.Module) -> list[Any]:
    """The LoRA layers that have the fast form."""
    fast = (getattr(m.forward, "__func__", None) is _lora_linear for m in model.modules())
    return [m for m, is_fast in zip(model.modules(), fast, strict=True) if is_fast]


def fuse(model: nn.Module, *, tried: bool = True) -> int:
    """Give the parts of `model` that compute one of these functions the fast form; how many were found.

    A part is recognised by what it holds, and one of each kind is tried: only if it gives what its own code
    gives is it replaced. A weight that trains, a dropout and a quantised layer stay with their own code.
    With `tried` false agreement is assumed, for a model on the meta device, which computes nothing.
    """
    found, agrees = 0, dict[Any, bool]()
    for module in model.modules():
        fast = _fast_form(module)
        if fast is None:
            continue
        kind = (type(module), fast, *(tuple(p.shape) for p in module.parameters()))
        if kind not in agrees:
            agrees[kind] = not tried or _agrees(module, fast)
        if agrees[kind]:
            module.forward = MethodType(fast, module)
            found += 1
    return found


def _fast_form(module: nn.Module) -> Any:
    if isinstance(module, LoraLinear):
        return _lora_linear if _plain_lora(module) else None
    own = {name for name, _ in module.named_children()}
    if own == {"gate_proj", "up_proj", "down_proj", "act_fn"}:
        linears: Any = (module.gate_proj, module.up_proj, module.down_proj)
        plain = all(type(part) is nn.Linear and part.bias is None for part in linears)
        frozen = not any(p.requires_grad for p in module.parameters())
        return _gated_mlp if plain and frozen else _middle_of_mlp
    if type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon"):
        return None if module.weight.requires_grad else _rms_norm
    return None


def _plain_lora(layer: Any) -> bool:
    """One ordinary LoRA adapter on an ordinary linear layer."""
    if type(layer.base_layer) is not nn.Linear or layer.lora_variant or len(layer.lora_A) != 1:
        return False
    (dropout,) = layer.lora_dropout.values()
    (a,), (b,) = layer.lora_A.values(), layer.lora_B.values()
    return isinstance(dropout, nn.Identity) and a.bias is None and b.bias is None


def _agrees(module: Any, fast: Any) -> bool:
    weight = module.gate_proj.weight if hasattr(module, "gate_proj") else module.weight
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, weight.shape[-1], generator=rng).to(weight.device, weight.dtype)
    with torch.no_grad():
        usual, ours = module(x).float(), fast(module, x).float()
    bound = 1e-5 if weight.dtype == torch.float32 else 0.02
    return bool((usual - ours).abs().max() <= bound * usual.abs().max())


def _gated_mlp(self: Any, x: Tensor) -> Tensor:
    weights = (self.gate_proj.weight, self.up_proj.weight, self.down_proj.weight)
    y: Tensor = GatedMLP.apply(x, *weights)  # type: ignore[no-untyped-call]
    return y


def _middle_of_mlp(self: Any, x: Tensor) -> Tensor:
    g, u = self.gate_proj(x), self.up_proj(x)
    middle = SiluProduct.apply(g, u)  # type: ignore[no-untyped-call]
    y: Tensor = self.down_proj(middle)
    return y


def _rms_norm(self: Any, x: Tensor) -> Tensor:
    y: Tensor = RMSNorm.apply(x, self.weight, self.variance_epsilon)  # type: ignore[no-untyped-call]
    return y


def _lora_linear(self: Any, x: Tensor) -> Tensor:
    if self.disable_adapters or self.merged:
        usual: Tensor = type(self).forward(self, x)
        return usual
    (name,) = self.lora_A
    base, a, b = self.base_layer, self.lora_A[name].weight, self.lora_B[name].weight
    frozen, s = (base.weight, base.bias), self.scaling[name]
    y: Tensor = Lora.apply(x, *frozen, a, b, s)  # type: ignore[no-untyped-call]
    return y


def _flat(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])
