"""From the bytes of a data file to its rows, each with the line it starts on.

Text files are read here with the standard library, because the JSON builder of `datasets`
parses whole blocks and cannot name the line that broke.
"""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from fedit.core.errors import InputError

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Row:
    """The columns of one row, and where it stands as "file:line" (Parquet: "file:row")."""

    where: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used, where it stands as "file:line", and why."""

    where: str
    reason: str


def read_rows(name: str, data: bytes) -> list[Row | BadRow]:
    """Rows of a file in file order; what cannot be parsed stands among them as a BadRow.

    `name` is how messages call the file; its suffix tells tables from JSON, and the content
    tells a JSON array from JSON lines. Raises InputError when nothing of the file can be read.
    """
    suffix = PurePath(name).suffix.lower()
    if suffix == ".parquet":
        return list(_parquet(name, data))
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(f"{name}: the text is UTF-16, not UTF-8; save the file as UTF-8")
    # Bytes that are not UTF-8 become lone surrogates, so that each spoils its own row only.
    text = data.decode("utf-8-sig", errors="surrogateescape")
    if suffix in (".csv", ".tsv"):
        return _table(name, text, "\t" if suffix == ".tsv" else ",")
    opening = text.lstrip()[:1]
    spread = opening == "{" and text.lstrip().split("\n", 1)[0].rstrip() == "{"
    if opening == "[" or spread:
        return list(_values(name, text, array=opening == "["))
    return list(_lines(name, text))


def kind(value: object) -> str:
    """What a message calls the type of a value: "null", "a number", "a list" …"""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list"}
    return names.get(type(value), "an object" if isinstance(value, dict) else type(value).__name__)


def _lines(name: str, text: str) -> Iterator[Row | BadRow]:
    decoder = _Decoder()
    for number, line in enumerate(text.split("\n"), start=1):
        if line := line.strip():
            row, end = decoder.row(f"{name}:{number}", line, 0)
            if isinstance(row, Row) and line[end:].strip():
                row = BadRow(
                    row.where, f"broken JSON: more text after the object, column {end + 1}"
                )
            yield row


def _values(name: str, text: str, array: bool) -> Iterator[Row | BadRow]:
    """Objects of an array, or spread over lines one after another, up to the first break."""
    decoder = _Decoder()
    position = text.index("[") + 1 if array else 0
    counted, line = 0, 1
    while True:
        position = _skip(text, position)
        line += text.count("\n", counted, position)
        counted, where = position, f"{name}:{line}"
        if position == len(text):
            if array:
                yield BadRow(where, "the JSON array is never closed: the file may be cut short")
            return
        if array and text[position] == "]":
            if text[position + 1 :].strip():
                yield BadRow(where, "text after the end of the JSON array was not read")
            return
        row, end = decoder.row(where, text, position)
        if isinstance(row, BadRow) and end == position:
            yield BadRow(where, f"{row.reason}; the rest of the file was not read")
            return
        yield row
        position = _skip(text, end)
        if array and text[position : position + 1] == ",":
            position += 1
        elif array and text[position : position + 1] not in ("]", ""):
            yield BadRow(where, "no comma after this object; the rest of the file was not read")
            return


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


class _Decoder:
    """JSON objects that are also refused for a repeated key, NaN, Infinity or broken Unicode."""

    def __init__(self) -> None:
        self._problems: list[str] = []
        self._json = json.JSONDecoder(object_pairs_hook=self._object, parse_constant=self._constant)

    def row(self, where: str, text: str, start: int) -> tuple[Row | BadRow, int]:
        """The object at `start` and the offset behind it; `start` itself where JSON breaks."""
        self._problems.clear()
        try:
            value, end = self._json.raw_decode(text, start)
        except json.JSONDecodeError as error:
            broken = _unicode_problem(text[start : error.pos + 80])
            return BadRow(where, broken or f"broken JSON: {error.msg}{_place(error)}"), start
        except RecursionError:
            return BadRow(where, "broken JSON: nested too deeply"), start
        except ValueError as error:  # an integer of thousands of digits
            return BadRow(where, f"broken JSON: {error}"), start
        if problem := _unicode_problem(text[start:end]):
            return BadRow(where, problem), end
        if not isinstance(value, dict):
            return BadRow(where, f"the row is {kind(value)}, not a JSON object"), end
        if self._problems:
            return BadRow(where, self._problems[0]), end
        return Row(where, value), end

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            self._problems.append(f"the key {twice!r} stands twice in one object")
        for key, value in pairs:
            problem = _unicode_problem(key + value if isinstance(value, str) else key)
            if problem:
                self._problems.append(problem)
        return values

    def _constant(self, name: str) -> None:
        self._problems.append(f"{name} is not a JSON value; use a number or null")


def _place(error: json.JSONDecodeError) -> str:
    line = f"line {error.lineno} " if error.lineno > 1 else ""
    return f" at {line}column {error.colno}"


def _unicode_problem(text: str) -> str:
    """Why the text cannot be written as UTF-8, or ""."""
    if text.isascii():
        return ""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        if 0xDC80 <= code <= 0xDCFF:
            return f"not UTF-8: byte 0x{code - 0xDC00:02x}; save the file as UTF-8"
        return f"the escape \\u{code:04x} is half a character (a lone surrogate)"
    return ""


def _table(name: str, text: str, delimiter: str) -> list[Row | BadRow]:
    before = csv.field_size_limit(2**31 - 1)  # a long passage is no error
    try:
        return list(_records(name, text, delimiter))
    finally:
        csv.field_size_limit(before)


def _records(name: str, text: str, delimiter: str) -> Iterator[Row | BadRow]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        where = f"{name}:{reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if not header:
                raise InputError(f"{where}: the header cannot be read: {error}") from error
            yield BadRow(where, _csv_reason(str(error)))
            continue
        if not "".join(cells).strip() and len(cells) < 2:
            continue
        if not header:
            header = _header(where, cells)
        elif len(cells) != len(header):
            yield BadRow(where, f"{len(cells)} cells where the header has {len(header)}")
        elif problem := _unicode_problem("".join(cells)):
            yield BadRow(where, problem)
        else:
            yield Row(where, {key: cell for key, cell in zip(header, cells, strict=True) if key})


def _csv_reason(error: str) -> str:
    if "unexpected end" in error:
        return "a quoted cell opened here is never closed; the rest of the file was not read"
    return f"broken CSV: {error}"


def _header(where: str, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise InputError(f"{where}: the header has {twice[0]!r} twice; give each column one name")
    if problem := _unicode_problem("".join(names)):
        raise InputError(f"{where}: the header is {problem}")
    return names


def _parquet(name: str, data: bytes) -> Iterator[Row | BadRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        for batch in pq.ParquetFile(pa.BufferReader(data)).iter_batches():
            for offset in range(batch.num_rows):
                number += 1
                yield _parquet_row(f"{name}:{number}", batch.slice(offset, 1))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{name}: not a readable Parquet file: {error}") from error


def _parquet_row(where: str, batch: Any) -> Row | BadRow:
    try:
        return Row(where, batch.to_pylist()[0])
    except ValueError as error:  # text that is not UTF-8
        return BadRow(where, f"cannot be decoded: {error}")
