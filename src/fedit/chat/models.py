"""The models of a chat: adapters that are laid on one base in memory, one at a time."""

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fedit.build import make_adapter, make_base
from fedit.chat.names import BASE, find, label, run_of
from fedit.config import Plain
from fedit.core.errors import InputError
from fedit.core.messages import ADAPTER, Payload
from fedit.score import Loaded, Saved, load_run, saved_run
from fedit.train.adapters import Adapted
from fedit.train.model import fingerprint


@dataclass
class Mount:
    """A base in memory and the place for an adapter on it: one answer at a time."""

    loaded: Loaded
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def wearing(self, public: Payload | None) -> Iterator[Any]:
        """The model with this adapter and what belongs to it in the base, or bare, while the lock is held."""
        model: Any = self.loaded.adapted.model
        with self.lock:
            model.eval()
            if public is None:
                self.loaded.adapted.shift({})
                with model.disable_adapter():
                    yield model.get_base_model()
            else:
                self.loaded.adapted.load(public)
                yield model


@dataclass(frozen=True)
class Voice:
    """One model of a chat: its name, where it comes from, what its clients get (None: the bare base)."""

    name: str
    origin: str
    mount: Mount = field(repr=False)
    public: Payload | None = field(repr=False)


@dataclass(frozen=True)
class _Saved:
    """A run by its name in the chat, its base not loaded."""

    name: str
    path: Path
    run: Saved


def open_voices(
    run: Path, compare: Sequence[str] = (), say: Callable[[str], None] = lambda _: None
) -> list[Voice]:
    """The model of a run (or of a study), then those that `compare` names.

    Runs with the same model, adapter and template share one base in memory; for another the base is
    loaded anew, which `say` is told. Raises InputError: a model nobody knows, or one over another base.
    """
    path = run_of(run)
    named = [(label(path), path), *(find(path, word) for word in compare)]
    for name, _ in named:
        if [n for n, _ in named].count(name) > 1:
            raise InputError(f"--compare {name}: is there twice; name each model once")
    saved = [
        None if folder is None else _Saved(name, folder, saved_run(folder))
        for name, folder in named
    ]
    mount = Mount(_bare_run(path))
    first = saved[0]
    assert first is not None
    return [_bare(mount, say) if one is None else _voice(one, first, mount, say) for one in saved]


def _bare_run(path: Path) -> Loaded:
    """A run over its base as it was before the run, which can be compared with another's."""
    loaded = load_run(path)
    loaded.adapted.shift({})
    return loaded


def _bare(mount: Mount, say: Callable[[str], None]) -> Voice:
    plan = mount.loaded.plan
    public = None
    if isinstance(plan.adapter, Plain):
        say(f"{BASE}: loaded anew, as adapter.kind {plan.adapter.kind} changes the base itself")
        base, _ = make_base(plan)
        public = {ADAPTER: make_adapter(plan, base).read()}
    return Voice(BASE, "the base without an adapter", mount, public)


def _voice(one: _Saved, first: _Saved, mount: Mount, say: Callable[[str], None]) -> Voice:
    here = Path.cwd()
    place = one.path.relative_to(here) if one.path.is_relative_to(here) else one.path
    origin = f"{place}, after round {one.run.state.round}"
    alike = [getattr(one.run.plan, key) == getattr(first.run.plan, key) for key in _SHARED]
    if all(alike):
        same = one.run.known["base"] == first.run.known["base"]
        if not same and one.run.known.get("device") != first.run.known.get("device"):
            adapted = mount.loaded.adapted  # trained elsewhere, where its precision may differ
            same = one.run.known["base"] == fingerprint(adapted.model, adapted.parameters.values())
        if not same:
            raise _other_base(one, first)
        return Voice(one.name, origin, mount, one.run.state.public)
    unlike = ", ".join(key for key, same in zip(_SHARED, alike, strict=True) if not same)
    say(f"{one.name}: its {unlike} section is another, so its base is loaded anew")
    loaded = _bare_run(one.path)
    mine, its = _weights(mount.loaded.adapted), _weights(loaded.adapted)
    known = mine and its  # full tuning leaves no weight of the base to compare
    if not (mine <= its or its <= mine) if known else one.run.plan.model != first.run.plan.model:
        raise _other_base(one, first)
    return Voice(one.name, origin, Mount(loaded), one.run.state.public)


_SHARED = ("model", "adapter", "template")


def _other_base(one: _Saved, first: _Saved) -> InputError:
    return InputError(
        f"--compare {one.name}: {one.path} was trained on another base than {first.path}, or in another "
        "precision; only runs over one base can be compared"
    )


def _weights(adapted: Adapted) -> set[bytes]:
    """A hash of every weight of the base, whatever an adapter makes of its name."""
    mine = {id(parameter) for parameter in adapted.parameters.values()}
    found = set()
    for tensor in adapted.model.parameters():
        if id(tensor) not in mine:
            flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
            digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(memoryview(flat))  # type: ignore[arg-type]
            found.add(digest.digest())
    return found
