import json

import pytest

from fedit.core.errors import InputError
from fedit.data.rows import BadRow, Row, kind, read_rows

GOOD = b'{"instruction": "a", "response": "b"}'


def reasons(name: str, data: bytes) -> dict[str, str]:
    return {row.where: row.reason for row in read_rows(name, data) if isinstance(row, BadRow)}


def good(name: str, data: bytes) -> list[str]:
    return [row.where for row in read_rows(name, data) if isinstance(row, Row)]


def test_json_lines_keep_their_numbers_across_empty_and_broken_lines():
    data = GOOD + b"\n\n{broken\n" + GOOD + b"\n[1]\n" + GOOD + b" x\n"
    assert good("d.jsonl", data) == ["d.jsonl:1", "d.jsonl:4"]
    found = reasons("d.jsonl", data)
    assert list(found) == ["d.jsonl:3", "d.jsonl:5", "d.jsonl:6"]
    assert "broken JSON" in found["d.jsonl:3"]
    assert "a list, not a JSON object" in found["d.jsonl:5"]
    assert "more text" in found["d.jsonl:6"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b'{"m": [{"role": 1, "role": 2}]}', "'role' stands twice"),
        (b'{"a": "\xff"}', "not UTF-8: byte 0xff"),
        (b'{"a": "\\ud800"}', "lone surrogate"),
        (b'{"a": "\0"}', "broken JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "broken JSON"),
        (b'{"a": ' + b"[" * 200_000, "nested too deeply"),
        (b'"text"', "text, not a JSON object"),
        (b"null", "null, not a JSON object"),
        (b'{"a": 1', "broken JSON"),
    ],
)
def test_a_bad_json_line_is_named_and_spares_its_neighbours(line, reason):
    data = GOOD + b"\n" + line + b"\n" + GOOD
    assert good("d.jsonl", data) == ["d.jsonl:1", "d.jsonl:3"]
    assert reason in reasons("d.jsonl", data)["d.jsonl:2"]


def test_byte_order_mark_and_windows_line_ends_are_accepted():
    data = b"\xef\xbb\xbf" + GOOD + b"\r\n" + GOOD + b"\r\n"
    assert good("d.jsonl", data) == ["d.jsonl:1", "d.jsonl:2"]
    assert not reasons("d.jsonl", data)


def test_a_line_separator_inside_text_does_not_end_the_line():
    data = json.dumps({"a": "x\u2028y\x85z"}, ensure_ascii=False).encode()
    assert good("d.jsonl", data) == ["d.jsonl:1"]


def test_an_array_names_the_line_each_element_starts_on():
    rows = [{"instruction": "a", "response": "b"}] * 3
    data = json.dumps(rows, indent=1).encode()
    assert good("d.json", data) == ["d.json:2", "d.json:6", "d.json:10"]
    assert good("d.jsonl", data.replace(b"\n", b"\r\n"))[-1] == "d.jsonl:10"


def test_an_array_that_breaks_keeps_its_good_part():
    data = b'[\n {"a": 1},\n {"a": \xff},\n {"a": 2}\n]'
    assert good("d.json", data) == ["d.json:2"]
    assert "rest of the file was not read" in reasons("d.json", data)["d.json:3"]
    assert "never closed" in reasons("d.json", b'[\n {"a": 1},\n')["d.json:3"]
    assert "no comma" in reasons("d.json", b'[{"a": 1}\n{"a": 1}]')["d.json:1"]
    assert "after the end" in reasons("d.json", b'[{"a": 1}]\nmore')["d.json:1"]


def test_an_array_element_that_is_bad_spares_its_neighbours():
    data = b'[{"a": 1},\n{"a": "\xff"},\n{"a": 1, "a": 2}, 5,\n{"a": 3}]'
    assert good("d.json", data) == ["d.json:1", "d.json:4"]
    assert "not UTF-8" in reasons("d.json", data)["d.json:2"]


def test_a_json_file_may_hold_lines_or_objects_spread_over_lines():
    assert good("d.json", GOOD + b"\n" + GOOD) == ["d.json:1", "d.json:2"]
    spread = b'{\n "a": 1\n}\n{\n "a": 2\n}\n'
    assert good("d.json", spread) == ["d.json:1", "d.json:4"]
    assert "rest of the file" in reasons("d.json", b'{\n "a": 1,\n}\n')["d.json:1"]


def test_csv_rows_are_named_by_their_first_line():
    data = b'a,b\r\n1,"two\r\nlines"\r\n\r\n3\r\n4,5,6\r\n"7",8\r\n9,\xff\r\n'
    assert good("d.csv", data) == ["d.csv:2", "d.csv:7"]
    found = reasons("d.csv", data)
    assert found["d.csv:5"] == "1 cells where the header has 2"
    assert found["d.csv:6"] == "3 cells where the header has 2"
    assert "not UTF-8" in found["d.csv:8"]


def test_csv_quotes_that_do_not_match_are_reported():
    assert "broken CSV" in reasons("d.csv", b'a,b\n"1"x,2\n3,4\n')["d.csv:2"]
    assert good("d.csv", b'a,b\n"1"x,2\n3,4\n') == ["d.csv:3"]
    assert "never closed" in reasons("d.csv", b'a,b\n1,2\n"3,4\n5,6\n')["d.csv:3"]


def test_a_gigantic_csv_cell_is_read_and_the_limit_is_put_back():
    import csv

    before = csv.field_size_limit()
    row = read_rows("d.csv", b"a,b\n1," + b"x" * 300_000)[0]
    assert isinstance(row, Row)
    assert len(row.values["b"]) == 300_000
    assert csv.field_size_limit() == before


def test_tsv_is_split_at_tabs_and_columns_without_a_name_are_left_out():
    row = read_rows("d.tsv", b"\tq\n0\twhat, then?\n")[0]
    assert row == Row("d.tsv:2", {"q": "what, then?"})


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("d.jsonl", "[]".encode("utf-16"), "UTF-16"),
        ("d.csv", b"a,b,a\n1,2,3\n", "'a' twice"),
        ("d.csv", b'"a"b,c\n1,2\n', "header cannot be read"),
        ("d.csv", b"a,\xff\n1,2\n", "header is not UTF-8"),
        ("d.parquet", b"PAR1 not really", "not a readable Parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_is_refused(name, data, message):
    with pytest.raises(InputError, match=message):
        read_rows(name, data)


def test_parquet_rows_are_numbered_and_broken_text_is_named(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    broken = pa.Array.from_buffers(pa.binary(), 2, pa.array([b"ok", b"\xff"]).buffers())
    table = pa.table({"a": broken.view(pa.string())})
    pq.write_table(table, tmp_path / "d.parquet")
    first, second = read_rows("d.parquet", (tmp_path / "d.parquet").read_bytes())
    assert first == Row("d.parquet:1", {"a": "ok"})
    assert isinstance(second, BadRow)
    assert second.where == "d.parquet:2"


def test_kinds_are_named_in_plain_words():
    assert [kind(value) for value in (None, True, 1, 1.5, "a", [], {})] == [
        "null", "a boolean", "a number", "a number", "text", "a list", "an object",
    ]  # fmt: skip
