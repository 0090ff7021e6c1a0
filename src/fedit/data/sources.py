"""From a source's name (the microworld, files, a folder, a glob, a hub id) to Examples."""

import glob
import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fedit.core.errors import InputError
from fedit.core.examples import Example
from fedit.data.microworld import microworld
from fedit.data.rows import SUFFIXES, BadRow, Row, read_rows
from fedit.data.shapes import check_columns, mapped, recognise, to_example

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Source:
    """What a source holds: usable examples, rows that are not, each file's hash, the shapes met.

    `files` maps a file's name to its SHA-256 in hex, and a hub id to its revision and fingerprint.
    """

    examples: list[Example]
    bad: list[BadRow]
    files: dict[str, str]
    shape: str


@dataclass(frozen=True)
class _File:
    """Rows of one file; `name` is what messages call it, `stem` its examples' label `file`."""

    name: str
    stem: str
    digest: str
    rows: list[Row | BadRow]


def read_source(
    source: str,
    *,
    mapping: Mapping[str, str] | None = None,
    split: str = "train",
    revision: str | None = None,
) -> Source:
    """Examples of "microworld", a file, a folder, a glob, or a hub id "owner/name" (read last).

    `mapping` says which columns hold what: {"instruction": …, "response": …} or {"messages": …};
    `split` and `revision` are for the hub, and name part and seed of the microworld. Every example
    carries the label `file`. Bad rows are
    returned, never raised. Raises InputError for a source that is missing, empty, unreadable, of
    another kind or of an unknown shape, and for a mapping that does not fit it.
    """
    if source == "microworld":
        return _microworld(mapping, split, revision)
    paths = _local(source)
    files = [_hub(source, split, revision)] if paths is None else _read(paths)
    if not any(file.rows for file in files):
        raise InputError(f"data source {source!r}: no rows in it; give a file that holds some")
    return _examples(source, files, mapping)


def check_source(source: str) -> None:
    """Refuse a local source whose files are missing or cannot be opened; nothing of them is read.

    A hub id is not asked for. Raises InputError.
    """
    for path in () if source == "microworld" else _local(source) or ():
        try:
            path.open("rb").close()
        except OSError as error:
            raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"data file '{path}': cannot be read: {error.strerror}; check its permissions"
    )


def _examples(source: str, files: list[_File], mapping: Mapping[str, str] | None) -> Source:
    told = None if mapping is None else mapped(mapping)
    readable = [row for file in files for row in file.rows if isinstance(row, Row)]
    if told and readable:
        check_columns(source, told, readable)
    examples: list[Example] = []
    bad: list[BadRow] = []
    shapes: list[str] = []
    for file in files:
        good = [row for row in file.rows if isinstance(row, Row)]
        shape = told or (recognise(file.name, good) if good else None)
        if shape and shape.name not in shapes:
            shapes.append(shape.name)
        for row in file.rows:
            made = to_example(row, shape, file.stem) if shape and isinstance(row, Row) else row
            if isinstance(made, Example):
                examples.append(made)
            elif isinstance(made, BadRow):
                bad.append(made)
    return Source(examples, bad, {file.name: file.digest for file in files}, ", ".join(shapes))


def checked(source: Source, bad_rows: str, key: str = "data.bad_rows") -> list[str]:
    """Notes on a source's bad rows. Raises InputError naming them, and the `key`, where it refuses them."""
    if not source.bad:
        return []
    shown = [f"  {bad.where}: {bad.reason}" for bad in source.bad[:10]]
    if len(source.bad) > len(shown):
        shown.append(f"  and {len(source.bad) - len(shown)} more")
    listing = "\n".join(shown)
    if bad_rows == "refuse" or not source.examples:
        raise InputError(
            f"data: {len(source.bad)} bad rows beside {len(source.examples)} good ones:\n{listing}\n"
            f"mend them, or set {key}: drop to go on without them"
        )
    return [f"dropped {len(source.bad)} bad rows:\n{listing}"]


def _microworld(mapping: Mapping[str, str] | None, part: str, revision: str | None) -> Source:
    if mapping:
        raise InputError("data.columns: the microworld needs none; leave it out")
    if revision is not None and not revision.isdecimal():
        raise InputError(
            f"data.revision: {revision!r} is no seed of a microworld; give a whole number ≥ 0"
        )
    seed = int(revision or 0)
    return Source(microworld(part, seed), [], {f"microworld {part}": _digest(part, seed)}, "dolly")


@cache
def _digest(part: str, seed: int) -> str:
    return hashlib.sha256(repr(microworld(part, seed)).encode()).hexdigest()


def _local(source: str) -> list[Path] | None:
    """The files a local source names, in natural order; None when only the hub can know it."""
    if not source.strip():
        raise InputError("data source '': empty; name a file, a folder, a glob or a hub id")
    path = Path(os.path.expanduser(source))
    try:
        if path.is_dir():
            return _folder(path)
        if path.exists():
            return [_supported(path)]
    except OSError as error:
        raise InputError(f"data source {source!r}: cannot be read: {error.strerror}") from error
    if glob.has_magic(source):
        found = map(Path, glob.glob(str(path), recursive=True))
        files = [_supported(file) for file in found if file.is_file()]
        if not files:
            raise InputError(f"data source {source!r}: the pattern matches no file")
        return sorted(files, key=_natural)
    if _HUB_ID.fullmatch(source) and path.suffix.lower() not in SUFFIXES and source[0] not in ".~":
        return None
    raise InputError(f"data source {source!r}: no such file or folder; check the path")


def _folder(path: Path) -> list[Path]:
    found = [file for file in path.iterdir() if file.is_file() and file.name[0] != "."]
    clients = [file for file in found if re.fullmatch(r"local_training_.+\.json", file.name)]
    files = clients or [file for file in found if file.suffix.lower() in SUFFIXES]
    if not files:
        raise InputError(f"data source '{path}': no data file in the folder ({_kinds()})")
    return sorted(files, key=_natural)


def _kinds() -> str:
    return "supported: " + " ".join(SUFFIXES)


def _supported(path: Path) -> Path:
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"data source '{path}': files of this kind are not read ({_kinds()})")
    return path


def _natural(path: Path) -> list[tuple[int, str]]:
    """A sort key under which local_training_2 comes before local_training_10."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part)
        for part in re.split(r"(\d+)", str(path))
    ]


def _read(paths: list[Path]) -> list[_File]:
    root = Path(os.path.commonpath([path.parent for path in paths]))
    stems = Counter(path.with_suffix("") for path in paths)  # a.json and a.csv keep their suffixes
    files = []
    for path in paths:
        name = path.relative_to(root)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise _unreadable(path, error) from error
        digest = hashlib.sha256(data).hexdigest()
        rows = read_rows(name.as_posix(), data)
        stem = name.with_suffix("") if stems[path.with_suffix("")] == 1 else name
        files.append(_File(name.as_posix(), stem.as_posix(), digest, rows))
    return files


def _hub(source: str, split: str, revision: str | None) -> _File:
    import datasets

    try:
        table = datasets.load_dataset(source, split=split, revision=revision)
        rows: list[Row | BadRow] = [
            Row(f"{source}:{number}", dict(row)) for number, row in enumerate(table, start=1)
        ]
    except Exception as error:  # the hub client raises dozens of unrelated types
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"data source {source!r}: no such local path, and the Hugging Face hub gave no split "
            f"{split!r} of it ({type(error).__name__}: {reason}); check the id, the split, the "
            "revision and the network, or name a local file"
        ) from error
    digest = f"{revision or 'main'} {table._fingerprint}"
    return _File(source, source.split("/")[1], digest, rows)
