"""What a line of the terminal means: a question, or a command that begins with a slash."""

from fedit.chat.talk import Talk
from fedit.core.errors import InputError

HELP = """\
/context TEXT   the passage that the next question is about; without TEXT: none
/temperature X  0 always takes the likeliest token (the default); 0.7 or 1 vary
/new            begin a new conversation
/help           these lines
/quit           end, as does Ctrl-D
//…             a question that begins with a slash
Ctrl-C stops an answer; twice, it ends the chat."""


def obey(talk: Talk, line: str) -> str | None:
    """Carry out a command and say what was done; None for a question. Raises InputError, EOFError."""
    if not line.startswith("/") or line.startswith("//"):
        return None
    word, _, rest = line.partition(" ")
    rest = rest.strip()
    match word:
        case "/context":
            talk.context = rest
            return (
                f"the next question is about these {len(rest)} characters" if rest else "no passage"
            )
        case "/temperature":
            talk.temperature = temperature(rest)
            return f"temperature {talk.temperature:g}"
        case "/new":
            talk.clear()
            return "a new conversation"
        case "/help":
            return HELP
        case "/quit":
            raise EOFError
    raise InputError(
        f"{word}: no such command; /help tells them, and a question may begin with two slashes"
    )


def temperature(text: str) -> float:
    """A temperature from its text. Raises InputError."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise InputError(
            f"temperature: {text!r} is no number from 0 to 100; 0 is the likeliest token"
        )
    return value
