"""How many of the microworld's probes a base passes."""

from collections.abc import Sequence
from typing import Any

from fedit.data.microworld.probes import Probe
from fedit.evaluate.generate import generate

_LONGEST = 28  # tokens of an expected text, and a few more


def passed(model: Any, tokenizer: Any, probes: Sequence[Probe]) -> float:
    """Share of probes whose greedy continuation begins with what is expected."""
    made = generate(
        model,
        [tokenizer(probe.prompt)["input_ids"] for probe in probes],
        max_new_tokens=_LONGEST,
        stop_ids=[tokenizer.eos_token_id],
        pad_id=tokenizer.pad_token_id,
        batch_size=64,
        device="cpu",
    )
    texts = [tokenizer.decode(ids) + "\n" for ids in made]
    right: int = sum(t.startswith(p.expected) for t, p in zip(texts, probes, strict=True))
    return right / len(probes)
