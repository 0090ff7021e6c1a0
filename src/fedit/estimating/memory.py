"""Memory by part, in bytes, of one process that trains one client after another."""

from dataclasses import dataclass, replace

import torch

from fedit.build import Job
from fedit.config import TopK
from fedit.core.messages import Payload
from fedit.core.rounds import make_order
from fedit.core.tree import Tree
from fedit.engines.homes import GENERATIONS
from fedit.estimating.machine import resident
from fedit.estimating.parameters import held_bytes
from fedit.estimating.working import Working, largest, working_memory
from fedit.train.encoded import apart
from fedit.train.optimizers import make_optimizer


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes; `activations` and `logits` are those of the largest micro-batch there is.

    `logits` is all that the output layer, the loss and the backward pass need on top: where rows are laid
    end to end and the output layer is frozen that is a slice of the logits at a time. `server` holds the
    sums in fp64 and copies of the adapter, `step` what it needs for a moment at a round's end. `process`
    is Python with its libraries and the data. `allocator` is what was held beside all this when real
    steps were timed: freed blocks that do not fit what is asked for next. `homes` are on disk. `peak` is
    where the model is: on a GPU that is without `server` and `process`.
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
    optimizer = sum(t.nbytes for part in _moments(job).values() for t in part.values())
    training = _training(job)
    evaluation = _evaluation(job)
    sums = 2 * adapter * (1 + len(job.algorithm.local.roles))
    server, step = sums + 3 * adapter, 3 * 2 * adapter + adapter
    if plan.compression.down:  # what was received, and what was left out
        server += 2 * adapter
    logits = max(0, training.peak - training.activations - adapter)
    process = resident() if process is None else process
    held = held_bytes(job) + (0 if trainable else adapter)
    fitting = adapter + optimizer + training.activations + logits
    if job.base.device.type == "cpu":
        peak = process + held + server + max(fitting, evaluation, step)
    else:
        peak = held + max(fitting, evaluation)
    return Memory(
        process=process,
        base=held_bytes(job),
        adapter=0 if trainable else adapter,
        gradients=adapter,
        optimizer=optimizer,
        activations=training.activations,
        logits=logits,
        evaluation=evaluation,
        server=server,
        step=step,
        homes=_homes(job, tree),
        peak=peak,
    )


def _training(job: Job) -> Working:
    local, groups = job.plan.local, list(job.trainer.examples.values())
    rows = largest(groups, local.micro_batch or local.batch, packs=job.forward.packs)
    return working_memory(job.forward, apart(rows), train=True)


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


def _homes(job: Job, tree: Tree) -> int:
    """Bytes that all clients keep on disk at the end: as many generations as a run can go back, and one."""
    plan, rounds = job.plan, job.plan.federation.rounds
    state = job.algorithm.server.init(tree)
    order = make_order(state, 0, job.algorithm, job.policy, job.engine.clients(), plan.seed)
    kept = sum(tree[name].nbytes for name in order.trains - order.travels)
    if isinstance(plan.compression.up, TopK):
        kept += sum(tree[name].nbytes for name in order.travels)
    if plan.local.keep_optimizer:
        kept += sum(t.nbytes for part in _moments(job).values() for t in part.values())
    return kept * len(job.engine.clients()) * min(rounds, GENERATIONS + 1)
