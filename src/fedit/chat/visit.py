"""What one visitor of the page asked and was answered, and how it looks: text only, whatever is in it."""

from collections.abc import Iterator
from html import escape

from fedit.chat.reply import Reply
from fedit.chat.talk import Talk
from fedit.printable import printable

STYLE = """
.models { display: grid; gap: .75rem;
  grid-template-columns: repeat(auto-fit, minmax(min(13rem, 100%), 1fr)); }
.model { display: flex; flex-direction: column; height: 56vh; min-height: 14rem; overflow: hidden;
  border: 1px solid var(--border-color-primary); border-radius: .6rem; }
.model header { padding: .5rem .8rem; border-bottom: 1px solid var(--border-color-primary); }
.model header small { display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  opacity: .7; }
.said { flex: 1; display: flex; flex-direction: column-reverse; overflow-y: auto; padding: .8rem; }
.said > div { margin-bottom: auto !important; }  /* at the top while short, scrolled to the end when long */
.said p { margin: 0 0 .6rem; padding: .5rem .7rem; border-radius: .6rem; white-space: pre-wrap;
  overflow-wrap: anywhere; color: var(--body-text-color); background: var(--background-fill-secondary); }
.said p.question { margin-left: 1.5rem; background: var(--color-accent-soft); }
.said p.passage { margin-left: 1.5rem; border-left: 3px solid var(--border-color-primary);
  max-height: 6rem; overflow-y: auto; }
.said p.nothing { font-style: italic; opacity: .7; }
@media (max-width: 40rem) { .model { height: auto; min-height: 7rem; max-height: 56vh; } }
.doing { min-height: 1.6em; padding: .3rem .2rem 0; opacity: .7; }
"""


class Visit:
    """A visitor's own conversation with the models of a talk."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk.anew()
        self._replies: list[Reply] = []
        self._said: list[list[tuple[str, str]]] = []
        self.clear()

    def ask(self, question: str, context: str) -> Iterator[str]:
        """Let one model after another answer; says what is going on whenever something has changed."""
        self.talk.context = context
        replies = self._replies = self.talk.ask(question)
        said = self._said
        for column in said:
            column += [("passage", context)] if context.strip() else []
            column.append(("question", question))
        try:
            for column, reply in zip(said, replies, strict=True):
                if replies is not self._replies:  # stopped
                    break
                column.append(("answer", "…"))
                doing = f"{reply.voice.name} answers …"
                yield doing
                for text in reply:
                    column[-1] = ("answer", text or "…")
                    yield doing
                column[-1] = ("answer", reply.text) if reply.text else ("nothing", "said nothing")
        finally:
            if said is self._said:
                self.talk.keep(replies)

    def stop(self) -> None:
        """End the answer that is being made; the models after it are not asked."""
        replies, self._replies = self._replies, []
        for reply in replies:
            reply.stop()

    def clear(self) -> None:
        """Begin a new conversation."""
        self.stop()
        self.talk.clear()
        self._said = [[] for _ in self.talk.voices]

    def html(self, doing: str = "") -> str:
        """The conversation, a column a model, and a line below it."""
        columns = [
            f'<section class="model"><header><strong>{_text(voice.name)}</strong>'
            f'<small title="{_text(voice.origin)}">{_text(voice.origin)}</small></header>'
            f'<div class="said"><div>{"".join(map(_paragraph, said))}</div></div></section>'
            for voice, said in zip(self.talk.voices, self._said, strict=True)
        ]
        return (
            f'<div class="models">{"".join(columns)}</div><div class="doing">{_text(doing)}</div>'
        )


def _paragraph(said: tuple[str, str]) -> str:
    kind, text = said
    return f'<p class="{kind}">{_text(text)}</p>'


def _text(text: str) -> str:
    """Text as HTML that shows just it: no tags, and nothing that a template engine could read."""
    safe = escape(printable(text))
    return (
        safe.replace("{", "&#123;")
        .replace("}", "&#125;")
        .replace("$", "&#36;")
        .replace("`", "&#96;")
    )
