"""Memory by part, in bytes, of one process that trains the clients."""

from dataclasses import dataclass, replace

import torch

from fedit.build import Job
from fedit.config import InProcess, TopK
from fedit.core.amounts import part_of
from fedit.core.messages import Payload
from fedit.core.tree import Tree
from fedit.engines.homes import GENERATIONS
from fedit.estimating.keeping import keeping
from fedit.estimating.machine import resident
from fedit.estimating.parameters import base_parameters, held_bytes
from fedit.estimating.working import Working, largest, working_memory
from fedit.train.dpo import Preference
from fedit.train.encoded import Encoded, apart
from fedit.train.optimizers import make_optimizer
from fedit.train.stacked import obstacle


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes; `activations` and `logits` are those of the largest micro-batch there is.

    `logits` is all that the output layer, the loss and the backward pass need on top: where rows are laid
    end to end and the output layer is frozen that is a slice of the logits at a time. `server` holds the
    sums in fp64 and copies of the adapter, `step` what it needs for a moment at a round's end. `process`
    is Python with its libraries and the data. `allocator` is what was held beside all this when real
    steps were timed: freed blocks that do not fit what is asked for next. `homes` are on disk, `home` is
    what one client keeps, as it was and as it will be. `shifted` are the base's weights a second time,
    where a method adds to them. `peak` is where the model is: on a GPU that is without `server`, `home`
    and `process`. Of clients that train together all are counted.
    """

    process: int
    base: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    evaluation: int
    server: int
    step: int
    homes: int
    home: int
    shifted: int
    peak: int
    allocator: int = 0

    def reached(self, most: int) -> "Memory":
        """The same where a process has held `most` bytes."""
        more = max(0, most - self.peak)
        return replace(self, peak=self.peak + more, allocator=self.allocator + more)


def memory(job: Job, tree: Tree, process: int | None = None) -> Memory:
    """Memory of a run; `process` is what a process holds that has read the data (default: this one)."""
    plan, adapter = job.plan, sum(t.nbytes for t in tree.values())
    trainable = plan.adapter.kind in ("full", "bitfit")  # part of the base, which counts it
    moments, clients = _moments(job), _together(job)
    optimizer = clients * sum(t.nbytes for part in moments.values() for t in part.values())
    training = _training(job, clients)
    evaluation = max(_evaluation(job), _reference(job))
    kept = keeping(job, tree, moments)
    sums = 2 * adapter * (1 + len(job.algorithm.local.roles)) if kept.sums is None else kept.sums
    server, step = sums + kept.state + 2 * adapter, max(3 * 2 * adapter + adapter, kept.step)
    if plan.compression.down:  # what was received, and what was left out
        server += 2 * adapter
    unsent = adapter if isinstance(plan.compression.up, TopK) else 0
    kept = replace(kept, home=kept.home + unsent)
    home = 2 * kept.home * clients
    logits = max(0, training.peak - training.activations - adapter)
    process = resident() if process is None else process
    gradients = adapter * clients
    stacked = adapter * clients if clients > 1 else 0  # beside the model's own
    shifted = round(kept.shifted * _base_width(job))
    held = held_bytes(job) + (0 if trainable else adapter) + shifted
    fitting = stacked + gradients + optimizer + training.activations + logits
    if job.base.device.type == "cpu":
        peak = process + held + server + max(fitting + home, evaluation, step)
    else:
        peak = held + max(fitting, evaluation)
    generations = min(
        plan.federation.rounds, GENERATIONS + 1
    )  # as many as a run can go back, and one
    return Memory(
        process=process,
        base=held_bytes(job),
        adapter=(0 if trainable else adapter) + stacked,
        gradients=gradients,
        optimizer=optimizer,
        activations=training.activations,
        logits=logits,
        evaluation=evaluation,
        server=server,
        step=step,
        homes=kept.home * len(job.engine.clients()) * generations,
        home=home,
        shifted=shifted,
        peak=peak,
    )


def _together(job: Job) -> int:
    """Clients that train in one pass, at the most."""
    how = job.plan.engine
    if not isinstance(how, InProcess) or how.together == 1 or obstacle(job.trainer):
        return 1
    return min(how.together, part_of(job.plan.federation.cohort, len(job.engine.clients())))


def _base_width(job: Job) -> int:
    """Bytes of one of the base's weights."""
    return next(p.element_size() for p in base_parameters(job).values())


def _training(job: Job, clients: int) -> Working:
    return working_memory(job.forward, apart(_micro_batch(job, clients)), train=True)


def _reference(job: Job) -> int:
    """What it takes to ask the base about clients' pairs, before they train."""
    if not isinstance(job.trainer.objective, Preference):
        return 0
    return working_memory(job.forward, apart(_micro_batch(job, 1)), train=False).peak


def _micro_batch(job: Job, clients: int) -> list[Encoded]:
    local, groups = job.plan.local, list(job.trainer.examples.values())
    size = local.micro_batch or local.batch
    return largest(groups, size, packs=job.forward.packs, together=clients)


def _evaluation(job: Job) -> int:
    held = [job.test.rows, *([job.validation.rows] if job.plan.evaluation.clients else [])]
    held = [rows for rows in held if rows]
    if not held:
        return 0
    rows = largest(held, job.plan.evaluation.batch, packs=job.forward.packs)
    return working_memory(job.forward, apart(rows), train=False).peak


def _moments(job: Job) -> Payload:
    """What the optimizer remembers of each parameter, as after one step."""
    named = {n: _blank(p) for n, p in job.adapted.parameters.items()}
    optimizer = make_optimizer(job.plan.local, list(named.values()))
    for parameter in named.values():
        parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    found: Payload = {}
    for name, parameter in named.items():
        for key, value in optimizer.state[parameter].items():
            if isinstance(value, torch.Tensor):
                found.setdefault(key, {})[name] = value
    return found


def _blank(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.empty_like(parameter, device="meta", dtype=torch.float32))
