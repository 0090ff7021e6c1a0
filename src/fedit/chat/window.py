"""What of a conversation fits into a model's window, and how long an answer may become."""

from collections.abc import Sequence

from fedit.chat.models import Voice
from fedit.config import Virtual
from fedit.core.errors import InputError
from fedit.core.examples import Turn

_NEVER_CUT = -(10**9)  # tokens kept free: fewer than none, so that any prompt fits


def check_length(voice: Voice, new: int) -> None:
    """Refuse answers so long that no prompt would fit beside them. Raises InputError."""
    plan = voice.mount.loaded.plan
    virtual = plan.adapter.tokens if isinstance(plan.adapter, Virtual) else 0
    most = _places(voice) - virtual - -(-plan.template.max_length // 4)
    if new > most:
        raise InputError(
            f"--max-new-tokens {new}: with a prompt that is more than {voice.name} has places for; "
            f"give at most {most}"
        )


def reserved(voice: Voice, new: int) -> int:
    """Tokens of the prompt to leave free, as in scoring: a prompt as in training if it fits."""
    return max(0, voice.mount.loaded.plan.template.max_length + new - _places(voice))


def fit(voice: Voice, turns: Sequence[Turn], new: int) -> tuple[list[Turn], bool]:
    """The turns without the oldest exchanges that do not fit, and whether the question is cut too."""
    encoder, plan = voice.mount.loaded.encoder, voice.mount.loaded.plan
    room = plan.template.max_length - reserved(voice, new)
    kept = list(turns)
    while (length := len(encoder.prompt_ids(kept, _NEVER_CUT))) > room and len(kept) > 2:
        del kept[:2]
    return kept, length > room


def _places(voice: Voice) -> int:
    config = voice.mount.loaded.base.model.config
    return getattr(config, "max_position_embeddings", None) or 10**9
