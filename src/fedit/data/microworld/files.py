"""The microworld as JSONL files, for reading and for other programs."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from fedit.core.errors import InputError
from fedit.data.microworld import microworld
from fedit.data.microworld.corpus import corpus
from fedit.data.microworld.records import PARTS


def write_microworld(folder: Path, seed: int, documents: int) -> Iterator[tuple[Path, int]]:
    """Write train, dev, test and corpus .jsonl, yielding each path and its rows.

    The records read back as the same examples. Raises InputError for a folder that holds something.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InputError(f"{folder}: is not empty; give a new folder")
        for part in PARTS:
            rows = [
                {
                    "instruction": example.turns[0].text,
                    "context": example.turns[0].context,
                    "response": example.answer,
                    **{key: value for key, value in example.labels.items() if key != "file"},
                }
                for example in microworld(part, seed)
            ]
            yield _written(folder / f"{part}.jsonl", rows), len(rows)
        texts = [{"text": text} for text in islice(corpus(0), documents)]
        yield _written(folder / "corpus.jsonl", texts), len(texts)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written ({error.strerror}); choose another"
        ) from None


def _written(path: Path, rows: Iterable[dict[str, str]]) -> Path:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")
    return path
