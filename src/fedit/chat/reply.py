"""An answer while it is being made: greedy exactly as in scoring, or sampled from a seed."""

import threading
from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from typing import Any

import torch
from transformers import StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from fedit.chat.models import Voice
from fedit.chat.window import reserved
from fedit.core.examples import Turn
from fedit.evaluate.generate import settings


class Reply:
    """One model's answer to a conversation that ends with a question.

    Iterating over it makes the answer and gives its text so far; `stop` ends it at the next token.
    `tokens` counts it and `cut` says that it ended at `new` tokens and not by itself.
    """

    def __init__(
        self,
        voice: Voice,
        turns: Sequence[Turn],
        new: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.voice, self.turns, self.text, self.cut = voice, turns, "", False
        self._new, self._temperature, self._seed = new, temperature, seed
        self._encoder = voice.mount.loaded.encoder
        self._prompt = self._encoder.prompt_ids(turns, reserved(voice, new))
        self._ids: list[int] = []
        self._stop = threading.Event()
        self._made: SimpleQueue[int | BaseException | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._make)

    @property
    def tokens(self) -> int:
        """How many tokens the answer has so far."""
        return len(self._ids)

    def stop(self) -> None:
        """End the answer after the token that is being made."""
        self._stop.set()

    def __iter__(self) -> Iterator[str]:
        self._thread.start()
        ended = False
        try:
            while not ended:
                made = [self._made.get()]
                while not self._made.empty():  # several at once: decoded once
                    made.append(self._made.get())
                for one in made:
                    if isinstance(one, BaseException):
                        raise one
                    if one is None:
                        ended = True
                    elif one in self._encoder.stop_ids:
                        self.cut = False
                    else:
                        self._ids.append(one)
                        self.cut = len(self._ids) == self._new
                text = self._encoder.decode(self._ids)
                # the first bytes of a letter decode to U+FFFD until the rest is there
                self.text = text if ended else text.rstrip("\ufffd").rstrip()
                yield self.text
        finally:
            self._stop.set()

    def _make(self) -> None:
        """In a thread of its own, so that whoever waits for a token can be interrupted."""
        device = self.voice.mount.loaded.base.device
        ids = torch.tensor([self._prompt], device=device)
        cuda = [device] if device.type == "cuda" else []
        try:
            with (
                self.voice.mount.wearing(self.voice.public) as model,
                torch.random.fork_rng(devices=cuda),
            ):
                if not self._stop.is_set():  # while it waited for another's answer
                    torch.manual_seed(self._seed)
                    model.generate(
                        input_ids=ids,
                        attention_mask=torch.ones_like(ids),
                        generation_config=settings(
                            self._new,
                            self._encoder.stop_ids,
                            self._encoder.pad_id,
                            self._temperature,
                        ),
                        streamer=_Ear(self._made),
                        stopping_criteria=StoppingCriteriaList([self._stopped]),
                    )
        except BaseException as error:
            self._made.put(error)
        else:
            self._made.put(None)

    def _stopped(self, ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        return torch.full((len(ids),), self._stop.is_set(), device=ids.device)


class _Ear(BaseStreamer):  # type: ignore[misc]
    """Hears every new token; what it is given first is the prompt."""

    def __init__(self, made: "SimpleQueue[Any]") -> None:
        self._made, self._prompt = made, True

    def put(self, value: torch.Tensor) -> None:
        """A token, or at first the prompt."""
        if not self._prompt:
            self._made.put(int(value))
        self._prompt = False

    def end(self) -> None:
        """Nothing more; the thread tells."""
