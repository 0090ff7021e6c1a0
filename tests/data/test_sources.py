import json
import re

import pytest

from fedit.core.errors import InputError
from fedit.data.sources import read_source

ROW = {"instruction": "i", "context": "", "response": "r", "category": "c"}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_one_file_gives_examples_their_place_and_the_hash_of_the_file(tmp_path):
    source = read_source(write(tmp_path / "train.jsonl", [ROW, {**ROW, "response": ""}, ROW]))
    assert [example.where for example in source.examples] == ["train.jsonl:1", "train.jsonl:3"]
    assert [bad.where for bad in source.bad] == ["train.jsonl:2"]
    assert source.examples[0].labels == {"category": "c", "file": "train"}
    assert source.shape == "dolly"
    assert re.fullmatch("[0-9a-f]{64}", source.files["train.jsonl"])


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "json", "jsonl", "ndjson"])
def test_every_kind_of_file_gives_the_same_examples(tmp_path, suffix):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame([ROW | {"instruction": 'say "a, b"\tor\nc'}, ROW])
    path = tmp_path / f"d.{suffix}"
    if suffix in ("csv", "tsv"):
        frame.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    elif suffix == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=suffix != "json")
    source = read_source(str(path))
    assert not source.bad
    assert [example.turns[0].text for example in source.examples] == ['say "a, b"\tor\nc', "i"]
    assert source.examples[1].labels == {"category": "c", "file": "d"}


def test_a_folder_of_client_files_is_read_in_natural_order_and_alone(tmp_path):
    for name in ("local_training_10", "local_training_2", "global_test"):
        rows = [{"instruction": name, "input": "", "output": "o"}]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    source = read_source(str(tmp_path))
    files = [example.labels["file"] for example in source.examples]
    assert files == ["local_training_2", "local_training_10"]
    assert list(source.files) == ["local_training_2.json", "local_training_10.json"]


def test_a_folder_is_read_sorted_without_hidden_and_foreign_files(tmp_path):
    for name in ("b.jsonl", "a.jsonl", ".hidden.jsonl"):
        write(tmp_path / name, [ROW])
    (tmp_path / "notes.txt").write_text("not data")
    assert list(read_source(str(tmp_path)).files) == ["a.jsonl", "b.jsonl"]


def test_a_glob_tells_files_of_one_name_apart(tmp_path):
    for site in ("oslo", "rome"):
        (tmp_path / site).mkdir()
        write(tmp_path / site / "train.jsonl", [ROW])
    source = read_source(str(tmp_path / "*" / "train.jsonl"))
    assert [e.labels["file"] for e in source.examples] == ["oslo/train", "rome/train"]
    assert list(source.files) == ["oslo/train.jsonl", "rome/train.jsonl"]


def test_each_file_of_a_folder_has_its_own_shape(tmp_path):
    write(tmp_path / "a.jsonl", [ROW])
    write(tmp_path / "b.jsonl", [{"question": "q", "answer": "a"}])
    source = read_source(str(tmp_path))
    assert source.shape == "dolly, question/answer"
    assert [example.answer for example in source.examples] == ["r", "a"]


def test_a_mapping_is_checked_against_the_columns(tmp_path):
    path = write(tmp_path / "d.jsonl", [{"query": "q", "reply": "a"}])
    source = read_source(path, mapping={"instruction": "query", "response": "reply"})
    assert source.examples[0].answer == "a"
    with pytest.raises(InputError, match=r"data\.columns\.response.*'repli'.*did you mean 'reply'"):
        read_source(path, mapping={"instruction": "query", "response": "repli"})


def test_a_file_of_bad_rows_only_is_returned_not_raised(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text("{\nbroken\n")
    source = read_source(str(path))
    assert source.examples == []
    assert len(source.bad) == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "empty"),
        ("missing.jsonl", "no such file"),
        ("./missing", "no such file"),
        ("a\0b.json", "no such file"),
        ("x" * 5000, "File name too long|no such file"),
        ("data.txt", "not read .supported"),
        ("*.nothing", "matches no file"),
        ("*.txt", "not read .supported"),
        ("hollow", "no data file"),
        ("blank.jsonl", "no rows"),
        ("header.csv", "no rows"),
        ("array.json", "no rows"),
    ],
)
def test_a_source_that_cannot_be_read_is_refused(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.txt").write_text("text")
    (tmp_path / "hollow").mkdir()
    (tmp_path / "blank.jsonl").write_text("\n\n")
    (tmp_path / "header.csv").write_text("instruction,response\n")
    (tmp_path / "array.json").write_text("[]")
    with pytest.raises(InputError, match=message):
        read_source(source)


def test_a_file_without_permission_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "d.jsonl", [ROW])

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(InputError, match=r"d\.jsonl': cannot be read: Permission denied"):
        read_source(path)


def test_a_hub_id_is_loaded_with_its_split_and_revision(monkeypatch):
    import datasets

    asked = []

    def load(name, **options):
        asked.append((name, options))
        return datasets.Dataset.from_list([ROW, {**ROW, "response": None}])

    monkeypatch.setattr(datasets, "load_dataset", load)
    source = read_source("owner/name", split="test", revision="abc")
    assert asked == [("owner/name", {"split": "test", "revision": "abc"})]
    assert source.examples[0].where == "owner/name:1"
    assert source.examples[0].labels == {"category": "c", "file": "name"}
    assert "null" in source.bad[0].reason
    assert source.files["owner/name"].startswith("abc ")


def test_a_hub_that_fails_is_a_refusal_that_names_the_id(monkeypatch):
    import datasets

    def load(name, **options):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(InputError, match=r"'owner/name'.*no network.*name a local file"):
        read_source("owner/name")


@pytest.mark.parametrize(
    ("path", "rows", "shape"),
    [
        ("multitask/train.jsonl", 6600, "dolly"),
        ("alpaca/alpaca_zh_1k.json", None, "alpaca"),
        ("seed/mmlu_test_1444.jsonl", 1444, "alpaca"),
    ],
)
def test_real_files_are_read_whole(shared, path, rows, shape):
    source = read_source(str(shared / "data" / path))
    assert source.shape == shape
    assert source.bad == []
    assert len(source.examples) == rows or (rows is None and len(source.examples) > 900)


def test_files_of_one_stem_keep_their_suffixes_apart(tmp_path):
    for name in ("a.json", "a.jsonl", "b.json"):
        (tmp_path / name).write_text('{"prompt": "q", "completion": "a"}\n')
    files = [example.labels["file"] for example in read_source(str(tmp_path)).examples]
    assert files == ["a.json", "a.jsonl", "b"]
