"""What a worker does: carries out one run after another on a base that all workers share."""

import os
import signal
import threading
import time
import traceback
import warnings
from multiprocessing import parent_process
from multiprocessing.connection import Connection

import torch
from transformers.utils import logging

from fedit.build import forward_of, make_base
from fedit.core.errors import FeditError
from fedit.core.messages import State
from fedit.corpus import read_data
from fedit.evaluate.stored import Scores, write_scores
from fedit.runner import Run
from fedit.score import Loaded, score_items
from fedit.studies.jobs import Job
from fedit.train.adapters import Adapted
from fedit.train.lending import Lent
from fedit.train.model import Base


def serve(connection: Connection, lent: Lent | None) -> None:
    """Answer each job with None once its scores are on disk, or with (exit code, message)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and stops its workers
    warnings.simplefilter("ignore")  # what libraries say of themselves would stand among the lines
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    threading.Thread(target=_die_with_the_parent, daemon=True).start()
    base = lent.open() if lent else None
    while True:
        try:
            job: Job = connection.recv()
        except EOFError:
            return
        try:
            carry_out(job, base)
            connection.send(None)
        except FeditError as error:
            connection.send((error.exit_code, str(error)))
        except Exception:
            connection.send((None, traceback.format_exc()))


def carry_out(job: Job, base: Base | None) -> None:
    """Run or resume the job, score it and write `scores.json` into its folder."""
    if job.kind == "base":
        job.folder.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(job.plan.threads or 1)
        plain, encoder = make_base(job.plan, base)
        bare = Adapted(plain.model, {})
        forward = forward_of(job.plan, bare, plain, encoder)
        _score(job, Loaded(job.plan, plain, bare, forward, encoder, State(0, {}), {}))
        return
    with Run(job.plan, resume=True, lent=base) as run:
        for _ in run.rounds():
            pass
        done = run.job
        done.adapted.write(run.state.adapter)
        _score(
            job,
            Loaded(
                job.plan,
                done.base,
                done.adapted,
                done.forward,
                done.encoder,
                run.state,
                done.hashes,
            ),
        )


def _score(job: Job, loaded: Loaded) -> None:
    began = time.perf_counter()
    items, _ = score_items(loaded, read_data(job.plan).test)
    scores = Scores(loaded.state.round, time.perf_counter() - began, items)
    write_scores(job.folder, scores)


def _die_with_the_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
