"""A conversation: what was said to each model, the passage of the next question, the settings."""

from collections.abc import Iterable, Sequence

from fedit.chat.models import Voice
from fedit.chat.reply import Reply
from fedit.chat.window import check_length, fit
from fedit.core.examples import Turn
from fedit.core.seeds import stream


class Talk:
    """One conversation with one or several models; each remembers its own answers only, or, without
    `remember`, nothing: every question stands by itself, as in most instruction data.

    `notes` gathers what a person should be told, each thing once a conversation.
    """

    def __init__(
        self,
        voices: Sequence[Voice],
        new: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        *,
        remember: bool = True,
    ) -> None:
        self.voices, self.temperature, self.seed = list(voices), temperature, seed
        self.remember = remember
        self.new = new or voices[0].mount.loaded.plan.evaluation.max_new_tokens
        for voice in voices:
            check_length(voice, self.new)
        self.notes: list[str] = []
        self.clear()

    def anew(self) -> "Talk":
        """Another conversation with the same models and settings."""
        return Talk(self.voices, self.new, self.temperature, self.seed, remember=self.remember)

    def clear(self) -> None:
        """Forget everything that was said."""
        self.context = ""
        self._asked = 0
        self._told: set[str] = set()
        self._said: dict[str, list[Turn]] = {voice.name: [] for voice in self.voices}

    def ask(self, question: str) -> list[Reply]:
        """Each model's reply, not begun yet; give them to `keep` when they are done or stopped."""
        turn = Turn("user", question, self.context)
        self.context = ""
        seed = stream(self.seed, "chat", self._asked)
        self._asked += 1
        replies = []
        for voice in self.voices:
            said = self._said[voice.name] if self.remember else []
            turns, cut = fit(voice, [*said, turn], self.new)
            room = voice.mount.loaded.plan.template.max_length
            if len(turns) <= len(said):
                self._tell(
                    f"the oldest exchanges no longer fit into {room} tokens and are left out"
                )
            if cut:
                self._tell(f"the middle of a question is left out to fit into {room} tokens")
            replies.append(Reply(voice, turns, self.new, self.temperature, seed))
        return replies

    def keep(self, replies: Iterable[Reply]) -> None:
        """Remember what was answered, as far as it came; a model that said nothing was not asked."""
        for reply in replies:
            if reply.text:
                self._said[reply.voice.name] = [*reply.turns, Turn("assistant", reply.text)]
            if reply.cut:
                self._tell(f"answers end at {self.new} tokens; --max-new-tokens gives more")

    def told(self) -> list[str]:
        """The notes gathered since the last time."""
        notes, self.notes = self.notes, []
        return notes

    def _tell(self, note: str) -> None:
        if note not in self._told:
            self._told.add(note)
            self.notes.append(note)
