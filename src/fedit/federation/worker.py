"""A site's worker: a process that holds the model, over many runs, and answers what the server has signed."""

import json
import queue
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from fedit.build import Job, build, make_base
from fedit.build.rows import of_member
from fedit.config import Site
from fedit.core.errors import BrokenInvariant, FeditError, InputError, brief
from fedit.core.messages import Failure
from fedit.core.strict import WireError
from fedit.engines.frames import Hung, listen, place_of, receive, send
from fedit.engines.inprocess import InProcess
from fedit.engines.ledger import Post
from fedit.engines.messages import pack_update, unpack_order
from fedit.engines.said import undone
from fedit.engines.sealed import (
    ENROLMENT,
    FAILURE,
    INVITATION,
    UPDATE,
    Label,
    Terms,
    read_label,
)
from fedit.federation.kit import TAKEN, WORKER, Kit, open_kit
from fedit.federation.limits import explained, within
from fedit.federation.policy import check_recipe, check_work, told_count, told_metrics
from fedit.federation.terms import at_a_site, recipe_hash, with_own_base
from fedit.printable import printable
from fedit.train.model import Base, fingerprint


@dataclass
class Hosted:
    """What the worker holds of a run: its job, the post, and the last answer, kept for a repeated order."""

    terms: Terms
    post: Post
    job: Job
    asked: bytes = b""
    said: tuple[int, bytes] = (FAILURE, b"")


class Desk:
    """Answers one message after another; the base stays loaded as long as recipes name the same."""

    def __init__(self, kit: Kit, data: str, site: Site):
        self._kit, self._data, self._site = kit, data, site
        self._key, self._server = kit.key(), kit.key_of("server")
        self._hosted: Hosted | None = None
        self._base: tuple[str, Base, str] | None = None

    def answer(self, message: bytes) -> bytes:
        """The sealed answer. Raises WireError for what is not the server's, which gets none."""
        label = read_label(message)[0]
        hosted = self._hosted
        if label.kind != INVITATION and hosted and label.terms == hosted.terms:
            label, payload = hosted.post.take(message)
            return _sealed(hosted.post, label, *self._carried_out(hosted, payload))
        taken = self._kit.folder / TAKEN
        post = Post(label.terms, self._kit.name, self._key, self._server, taken)
        if label.kind != INVITATION:
            label, _ = post.take(message)
            why = "has no such run open; invite it again"
            return _sealed(post, label, FAILURE, _failure("not invited", why))
        label, payload = post.take(message, INVITATION)
        try:
            ready = self._kit.policy().model_copy(update={"seconds": None})  # of training alone
            with within(ready):
                return _sealed(post, label, ENROLMENT, self._enrolled(label, post, payload))
        except FeditError as error:
            _tell(f"refused: {error}")
            return _sealed(post, label, FAILURE, _failure("refused", str(error)))
        except (OSError, RuntimeError, MemoryError) as error:  # a full disk, too little memory
            _tell(f"cannot take part: {error}")
            return _sealed(post, label, FAILURE, _failure("refused", brief(error)))

    def _enrolled(self, label: Label, post: Post, payload: memoryview) -> bytes:
        """Get ready for a run, and say how many rows there are. Raises FeditError."""
        tree, policy = _tree(payload, label.terms), self._kit.policy()
        folder = self._kit.folder / "runs" / label.terms.run
        plan = at_a_site(tree, self._data, folder, self._site)
        check_recipe(policy, plan)
        plan = with_own_base(plan, self._site)
        with _kept_here():
            base, found = self._base_of(plan)
        if found != label.terms.base:
            raise InputError(
                f"model.base {tree['model']['base']}: this site's has the hash {found[:16]}…, the server's "
                f"{label.terms.base[:16]}…; get the same files as the server's, or the same revision"
            )
        self._hosted = None  # an earlier run's adapter and states: their memory first
        with _kept_here():
            job = build(plan, folder, base, reading=of_member(self._kit.name))
        (client,) = job.engine.clients()
        check_work(policy, plan, client)
        told_metrics(policy, {}, job.algorithm.reads)
        self._hosted = Hosted(label.terms, post, job)
        _tell(f"run {label.terms.run[:8]}: ready with {client.examples:,} rows")
        for note in job.notes:
            _tell(f"note: {note}")
        counts = {
            key: told_count(policy, n)
            for key, n in (("examples", client.examples), ("tokens", client.tokens))
        }
        return json.dumps(counts).encode()

    def _base_of(self, plan: Any) -> tuple[Base, str]:
        """The base of a plan and its hash, loaded only where it is another than the last."""
        wanted = plan.model.model_dump_json()
        if self._base is None or self._base[0] != wanted:
            self._hosted = self._base = None  # their memory first
            base, _ = make_base(plan)
            self._base = (wanted, base, fingerprint(base.model))
        return self._base[1], self._base[2]

    def _carried_out(self, hosted: Hosted, payload: memoryview) -> tuple[int, bytes]:
        """An order's answer; one that was lost on its way is not worked out again."""
        asked = sha256(payload).digest()
        if asked != hosted.asked:
            hosted.said = self._trained(hosted, payload)
            hosted.asked = asked
        return hosted.said

    def _trained(self, hosted: Hosted, payload: memoryview) -> tuple[int, bytes]:
        policy, name = self._kit.policy(), self._kit.name
        forgotten, content = undone(payload)
        began, order = time.perf_counter(), unpack_order(content)
        clients = hosted.job.engine
        assert isinstance(clients, InProcess)
        for round in forgotten:
            clients.homes.take_back([name], round)
        clients.homes.rewind(order.round)
        try:
            with within(policy):
                reply = clients.reply(order, name, len(content))
                clients.homes.flush()
        except OSError as error:  # a full disk
            _tell(f"{self._kit.folder}: {brief(error)}")
            reply = Failure(name, "error", f"its disk: {brief(error)}")
        except BrokenInvariant:
            raise
        except (FeditError, MemoryError) as error:  # a limit reached where nothing else catches it
            reply = Failure(name, "error", str(error) or brief(error))
        if isinstance(reply, Failure):
            reply = explained(reply, policy)
            _tell(f"round {order.round + 1}: failed: {reply.detail}")
            return FAILURE, _failure(reply.reason, reply.detail)
        metrics = told_metrics(policy, reply.metrics, hosted.job.algorithm.reads)
        block = pack_update(
            type(reply)(reply.client, reply.round, reply.attempt, reply.payload, metrics)
        )
        _tell(f"round {order.round + 1}: trained in {time.perf_counter() - began:.1f} s")
        return UPDATE, block


@contextmanager
def _kept_here() -> Iterator[None]:
    """Tell a fault of the site's own files here alone: its message may hold their names, or what rows say."""
    try:
        yield
    except FeditError as error:
        _tell(str(error))
        raise InputError(
            "its own files do not allow it; the terminal of its fedit join says why"
        ) from None


def _tree(payload: memoryview, terms: Terms) -> dict[str, Any]:
    """The recipe in an invitation, which must be the one that was signed for. Raises InputError."""
    try:
        tree = json.loads(bytes(payload))
    except ValueError as error:
        raise InputError(
            f"invitation: holds no recipe ({error}); the server runs another fedit"
        ) from None
    if not isinstance(tree, dict) or recipe_hash(tree) != terms.recipe:
        raise InputError("invitation: its recipe is not the one that was signed for")
    return tree


def _sealed(post: Post, label: Label, kind: int, content: bytes) -> bytes:
    return post.seal(label, content, kind=kind)


def _failure(reason: str, detail: str) -> bytes:
    return json.dumps({"reason": reason[:32], "detail": detail[:1000]}).encode()


def _tell(text: str) -> None:
    sys.stderr.write(f"worker: {printable(text)}\n")
    sys.stderr.flush()


def serve(desk: Desk, folder: Path) -> None:
    """Answer whoever of this site calls, one after another, for ever; model work stays in this thread."""
    waiting: queue.SimpleQueue[tuple[socket.socket, bytes]] = queue.SimpleQueue()
    with closing(listen(place_of(folder, WORKER))) as door:
        threading.Thread(target=_accept, args=(door, waiting), daemon=True).start()
        while True:
            line, message = waiting.get()
            with closing(line):
                try:
                    send(line, desk.answer(message))
                except WireError as error:
                    _tell(f"a message was refused: {error}")
                except Hung:
                    continue  # the answer is kept for when it is asked for again


def _accept(door: socket.socket, waiting: "queue.SimpleQueue[tuple[socket.socket, bytes]]") -> None:
    while True:
        line, _ = door.accept()
        threading.Thread(target=_take, args=(line, waiting), daemon=True).start()


def _take(line: socket.socket, waiting: "queue.SimpleQueue[tuple[socket.socket, bytes]]") -> None:
    try:
        (message,) = receive(line)
        waiting.put((line, message))
    except (Hung, ValueError):
        line.close()


def main(words: Mapping[str, Any]) -> None:
    """The process's own main."""
    kit = open_kit(Path(words["kit"]), "site")
    site = Site(**words["site"])
    if site.threads:
        torch.set_num_threads(site.threads)
    serve(Desk(kit, words["data"], site), kit.folder)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")  # of libraries, to whoever looks at a site's terminal
    main(json.loads(sys.argv[1]))
