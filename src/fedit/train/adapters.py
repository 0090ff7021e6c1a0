"""Adapters on a base model, and the one mapping between an adapter and a tree of named tensors."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import (
    IA3Config,
    LoraConfig,
    PeftConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
)
from safetensors.torch import save_file
from torch import Tensor, nn

from fedit.config import IA3, Adapter, Lora, LoraXs, Plain, Virtual
from fedit.core.errors import BrokenInvariant, InputError
from fedit.core.messages import ADAPTER, BASE, Payload
from fedit.core.seeds import stream
from fedit.core.tree import Tree, spec
from fedit.train.lora_xs import put_cores

_PEFT_NAME = ".default"


class AdapterError(BrokenInvariant):
    """A tree does not fit the adapter, or something outside the adapter has changed."""


@dataclass(frozen=True)
class Adapted:
    """A base with its adapter: `parameters` are the adapter's, by the names that travel."""

    model: nn.Module
    parameters: dict[str, nn.Parameter]
    _shifted: dict[str, tuple[nn.Parameter, Tensor]] = field(default_factory=dict, repr=False)

    def load(self, public: Payload) -> None:
        """Set the adapter, and the base as far as a method has added to it. Raises AdapterError."""
        self.write(public[ADAPTER])
        self.shift(public.get(BASE, {}))

    def shift(self, extra: Tree) -> None:
        """Base weights become what was loaded plus `extra`, [out × in] by the layer's name, and no more.

        A shifted layer has weights of its own: nobody who shares the base sees it.
        """
        for layer in self._shifted.keys() - extra.keys():
            self._base_of(layer).weight = self._shifted.pop(layer)[0]
        for layer, values in extra.items():
            base = self._base_of(layer)
            loaded, last = self._shifted.get(layer, (base.weight, None))
            if last is not values:
                turned = values.T if type(base).__name__ == "Conv1D" else values
                moved = loaded.detach().float() + turned.to(loaded.device)
                base.weight = nn.Parameter(moved.to(loaded.dtype), requires_grad=False)
                self._shifted[layer] = (loaded, values)

    def _base_of(self, layer: str) -> Any:
        module: Any = self.model.get_submodule(layer)
        return module.base_layer

    def read(self) -> Tree:
        """A copy of the adapter in fp32 on the CPU."""
        return {
            n: p.detach().to("cpu", torch.float32, copy=True) for n, p in self.parameters.items()
        }

    def check(self, tree: Tree) -> None:
        """Raise AdapterError unless the tree holds just the adapter's names and shapes."""
        mine = {name: tuple(p.shape) for name, p in self.parameters.items()}
        given = {name: shape for name, (shape, _) in spec(tree).items()}
        if mine != given:
            differs = sorted(n for n in mine.keys() | given.keys() if mine.get(n) != given.get(n))
            name = differs[0]
            raise AdapterError(
                f"adapter: {len(differs)} tensors differ from the model's in name or shape, first {name}: "
                f"{given.get(name, 'missing')}, the model's is {mine.get(name, 'without it')}; was it made "
                "for another base or another plan?"
            )

    def write(self, tree: Tree) -> None:
        """Set the whole adapter and prove that every tensor arrived. Raises AdapterError."""
        self.check(tree)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tree[name])
                if not torch.equal(parameter.cpu(), tree[name].to("cpu", parameter.dtype)):
                    raise AdapterError(f"adapter: {name} does not hold what was written to it")

    def watch_base(self) -> list[tuple[int, int]]:
        """Address and mutation count of every base parameter: equal before and after means untouched."""
        watched = (holder[name] for holder, name in self._base)
        return [(p.data_ptr(), p._version) for p in watched if p is not None]

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """The base by itself for a while; then the adapter trains. Raises AdapterError without a switch."""
        if not isinstance(self.model, PeftModel):
            raise AdapterError("the adapter is the base's own weights: it cannot be switched off")
        with self.model.disable_adapter():
            yield

    def train(self) -> None:
        """Put every module into training mode."""
        if not all(
            module.training for module in self._modules
        ):  # telling them anew takes far longer
            self.model.train()

    @cached_property
    def _modules(self) -> list[nn.Module]:
        return list(self.model.modules())

    @cached_property
    def _base(self) -> list[tuple[dict[str, nn.Parameter | None], str]]:
        """Where modules hold the base's parameters: one put in another's place is seen as well."""
        mine = {id(p) for p in self.parameters.values()}
        return [
            (module._parameters, name)
            for module in self._modules
            for name, parameter in module._parameters.items()
            if parameter is not None and id(parameter) not in mine
        ]

    def save(self, folder: Path, base: str) -> None:
        """Write the adapter as `folder`: PEFT's own format where PEFT has the kind.

        BitFit and full tuning have none: their tensors go to `adapter.safetensors` under the base model's
        own parameter names.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(self.model, PeftModel):
            config = self.model.peft_config["default"]
            config.base_model_name_or_path = base
            if isinstance(getattr(config, "target_modules", None), set):  # the same file every time
                config.target_modules = sorted(config.target_modules)
            with (
                warnings.catch_warnings()
            ):  # PEFT looks the base up on the hub to compare vocabularies
                warnings.filterwarnings("ignore", message="Could not find a config file")
                self.model.save_pretrained(str(folder), save_embedding_layers=False)
            (folder / "README.md").unlink(missing_ok=True)
        else:
            save_file(self.read(), folder / "adapter.safetensors")


def attach(model: nn.Module, plan: Adapter, seed: int) -> Adapted:
    """Freeze the base and put the planned adapter on it, initialised from the run's seed.

    Raises InputError where the base cannot carry the adapter, naming what to use instead.
    """
    model.requires_grad_(False)
    if isinstance(plan, Plain):
        return Adapted(model, _base_parameters(model, plan.kind))
    config, linear = _peft_config(model, plan), ", ".join(linear_names(model))
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out")
        warnings.filterwarnings("ignore", message="The following (rank|alpha)_pattern keys")
        torch.manual_seed(stream(seed, "adapter"))
        try:
            adapted = get_peft_model(model, config)
            if isinstance(plan, LoraXs):
                put_cores(adapted)
            if isinstance(plan, Virtual):
                _try_out(adapted)  # some bases say only when they run that they cannot take it
        except (ValueError, TypeError, AttributeError, RuntimeError, IndexError) as error:
            raise InputError(
                f"adapter.kind {plan.kind}: this {type(model).__name__} cannot carry it ({error}); its "
                f"linear layers, for adapter.kind lora or ia3 with targets, are {linear}"
            ) from None
    named = {n: p for n, p in adapted.named_parameters() if p.requires_grad}
    for parameter in named.values():
        parameter.data = parameter.data.float()
    return Adapted(adapted, {name.replace(_PEFT_NAME, ""): p for name, p in named.items()})


def linear_names(model: nn.Module) -> list[str]:
    """Last parts of the names of the linear layers: what `adapter.targets` may list."""
    return sorted(
        {
            name.rsplit(".", 1)[-1]
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
        }
    )


def _base_parameters(model: nn.Module, kind: str) -> dict[str, nn.Parameter]:
    chosen = {n: p for n, p in model.named_parameters() if kind == "full" or n.endswith("bias")}
    if not chosen:
        raise InputError(
            f"adapter.kind bitfit: {type(model).__name__} has no bias to train; use lora or ia3"
        )
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    return chosen


def _try_out(model: PeftModel) -> None:
    device, was_training = next(model.parameters()).device, model.training
    if device.type == "meta":  # a base without weights: there is nothing to run
        return
    ids = torch.zeros((1, 2), dtype=torch.int64, device=device)
    model.eval()
    with torch.no_grad():
        model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    model.train(was_training)


def _peft_config(model: nn.Module, plan: Adapter) -> PeftConfig:
    common: dict[str, Any] = {"task_type": "CAUSAL_LM"}
    if isinstance(plan, Lora | LoraXs):
        targets = plan.targets if isinstance(plan.targets, str) else _known(model, plan.targets)
        return LoraConfig(
            r=plan.rank,
            lora_alpha=plan.alpha,  # PEFT says int; it takes and saves a float
            lora_dropout=plan.dropout,
            target_modules=targets,
            use_rslora=isinstance(plan, Lora) and plan.rslora,
            use_dora=isinstance(plan, Lora) and plan.dora,
            **common,
        )
    if isinstance(plan, IA3):
        scaled = plan.targets and _known(model, [*plan.targets, *(plan.feedforward or [])])
        return IA3Config(target_modules=scaled, feedforward_modules=plan.feedforward, **common)
    if plan.kind == "prefix":
        return PrefixTuningConfig(num_virtual_tokens=plan.tokens, **common)
    assert plan.kind == "prompt"
    return PromptTuningConfig(num_virtual_tokens=plan.tokens, **common)


def _known(model: nn.Module, targets: list[str]) -> list[str]:
    known = linear_names(model)
    for target in targets:
        if target not in known:
            raise InputError(
                f"adapter.targets: no linear layer is called {target!r}; here are {', '.join(known)}"
            )
    head, words = model.get_output_embeddings(), model.get_input_embeddings()  # type: ignore[operator]
    if head is not None and getattr(head, "weight", None) is words.weight:
        for name, module in model.named_modules():
            if module is head and name.rsplit(".", 1)[-1] in targets:
                raise InputError(
                    f"adapter.targets: {name} shares its weights with the input embedding here, so an "
                    "adapter on it cannot be merged into the base; leave it out"
                )
    return targets
