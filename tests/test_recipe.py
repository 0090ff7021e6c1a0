import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedit.core.errors import InputError
from fedit.recipe import differences, dump_plan, load_plan, make_plan

RECIPE = "model: {base: m}\ndata: {train: microworld}\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a recipe into a folder of its own, beside an empty working folder."""
    (tmp_path / "work").mkdir()
    (tmp_path / "recipes").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def write(text: str | bytes = RECIPE, name: str = "r.yaml") -> Path:
        path = tmp_path / "recipes" / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def refusal(path, *overrides) -> str:
    with pytest.raises(InputError) as caught:
        load_plan(path, overrides)
    assert caught.value.exit_code == 2
    assert caught.value.__cause__ is None
    return str(caught.value)


# ---- reading


@pytest.mark.parametrize(
    ("written", "value"), [("1e-4", 1e-4), ("1e-1", 0.1), ("1E-4", 1e-4), ("5e0", 5.0), ("3", 3.0)]
)
def test_numbers_in_scientific_notation_are_numbers(write, written, value):
    assert load_plan(write(RECIPE + f"local: {{lr: {written}}}")).local.lr == value
    assert load_plan(write(), [f"local.lr={written}"]).local.lr == value


def test_shares_in_scientific_notation_are_shares(write):
    assert load_plan(write(), ["federation.cohort=5e-1"]).federation.cohort == 0.5
    assert load_plan(write(), ["data.holdout.size=1e-1"]).data.holdout.size == 0.1


def test_words_that_yaml_1_1_takes_for_switches_are_words(write):
    plan = load_plan(write(RECIPE + "evaluation: {by: no}\noutput: on\n"))
    assert (plan.evaluation.by, plan.output) == ("no", "on")


def test_a_run_without_a_name_is_called_after_its_file(write):
    assert load_plan(write(name="My Recipe (2).yaml")).name == "my-recipe-2"
    assert load_plan(write(name="研究.yaml")).name == "run"
    assert load_plan(write(name="x" * 100 + ".yaml")).name == "x" * 64
    assert load_plan(write(RECIPE + "name: given")).name == "given"


def test_a_byte_order_mark_is_no_part_of_the_first_key(write):
    assert load_plan(write(b"\xef\xbb\xbf" + RECIPE.encode())).model.base == "m"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["model: is required", "data: is required"]),
        ("# only a remark\n", ["model: is required"]),
        ("[]", ["must hold keys", "got list"]),
        ("- a\n- b\n", ["must hold keys", "got list"]),
        ("text", ["must hold keys", "got str"]),
        ("3", ["must hold keys", "got int"]),
        (b"\xff\xfe\x00", ["cannot be read", "give the path of a YAML file"]),
        (b"name: caf\xe9", ["cannot be read", "utf-8"]),
        ("model: {base: m", ["not valid YAML", "line 1"]),
        ("a: 1\nb: [\n", ["not valid YAML", "line"]),
        ("\tmodel: x", ["not valid YAML", "line 1, column 1"]),
        (RECIPE + "seed: 1\nseed: 2\n", ["duplicate key", "seed", "line 4"]),
        ("model: {base: m, base: n}", ["duplicate key", "base"]),
        ("---\na: 1\n---\nb: 2\n", ["not valid YAML", "another document"]),
        ("model: !!python/object/apply:os.getcwd []", ["not valid YAML", "constructor"]),
        ("model: *gone", ["not valid YAML", "alias"]),
        ("model: &a {base: *a}", ["aliases", "write the value out"]),
        ("model: &a {config: {model_type: x, y: *a}}", ["aliases", "write the value out"]),
        ("? {a: 1}\n: b", ["not valid YAML", "unhashable"]),
        ("when: 2020-13-45", ["not valid YAML", "month"]),
        ("x: \0", ["not valid YAML"]),
        ("[" * 500, ["not valid YAML", "nested too deeply"]),
        (RECIPE + "local:\n", ["local: must be a section", "None"]),
        (RECIPE + "1: 2", ["unknown key 1"]),
    ],
)
def test_a_recipe_that_is_none_is_refused_with_its_name(write, text, words):
    path = write(text)
    message = refusal(path)
    assert message.startswith(f"recipe {path}: ")
    for word in words:
        assert word in message
    assert "ruamel" not in message


def test_a_missing_recipe_and_a_folder_are_refused_by_name(tmp_path):
    assert "No such file" in refusal(tmp_path / "none.yaml")
    assert "directory" in refusal(tmp_path)
    assert "none.yaml" in refusal(tmp_path / "none.yaml")


def test_every_fault_has_its_line(write):
    text = "data: {}\nseed: -1\nfederation: {rounds: 0, cohort: 0}\n"
    lines = refusal(write(text)).splitlines()
    keys = ("model", "data.train", "seed", "federation.rounds", "federation.cohort")
    assert sorted(line.split(": ")[1] for line in lines) == sorted(keys)


# ---- overrides


def test_overrides_reach_sections_that_are_there_not_there_or_one_word(write):
    path = write(
        RECIPE + "algorithm: fedprox\npartition: dirichlet\nadapter: lora\ntemplate: vicuna\n"
    )
    plan = load_plan(
        path,
        [
            "algorithm.mu=0.5",
            "partition.alpha=2",
            "adapter.rank=3",
            "template.max_length=64",
            "federation.rounds=5",
            "data.holdout.size=7",
            "model.base=other",
        ],
    )
    assert (plan.algorithm.name, plan.algorithm.mu) == ("fedprox", 0.5)
    assert (plan.partition.by, plan.partition.alpha) == ("dirichlet", 2.0)
    assert (plan.adapter.kind, plan.adapter.rank) == ("lora", 3)
    assert (plan.template.name, plan.template.max_length) == ("vicuna", 64)
    assert (plan.federation.rounds, plan.data.holdout.size, plan.model.base) == (5, 7, "other")


def test_the_last_override_wins_and_others_stay(write):
    path = write(RECIPE + "federation: {rounds: 3, cohort: 2}\n")
    plan = load_plan(path, ["federation.rounds=5", "federation.rounds=6"])
    assert (plan.federation.rounds, plan.federation.cohort) == (6, 2)
    assert load_plan(path, ["federation={rounds: 7}"]).federation.cohort == 1.0


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("output=a=b", "a=b"),
        ("output='a: [b'", "a: [b"),
        ('output="tab\\t"', "tab\t"),
        ("output=über/ß 研究", "über/ß 研究"),
        ("output=null", None),
        ("output=~", None),
        ("output=", None),
        ("output='null'", "null"),
        ("output=C:\\x", "C:\\x"),
    ],
)
def test_values_are_yaml(write, word, value):
    assert load_plan(write(RECIPE + "output: old"), [word]).output == value


def test_lists_and_dictionaries_are_values(write):
    words = [
        "trackers=[wandb, tensorboard]",
        "adapter.targets=[q, v]",
        "data.columns={response: out}",
    ]
    plan = load_plan(write(), words)
    assert plan.trackers == ["wandb", "tensorboard"]
    assert plan.adapter.targets == ["q", "v"]
    assert plan.data.columns == {"response": "out"}


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("federation.rounds", "write key=value"),
        ("=5", "write key=value"),
        ("", "write key=value"),
        ("seed.x=5", "seed holds 4, which has no keys below it"),
        ("trackers.0=wandb", "trackers holds ['wandb']"),
        ("output=[x", "not valid YAML"),
        ("output=@x", "not valid YAML"),
        ("output={a: 1, a: 2}", "duplicate key"),
        ("output=!!python/object:os.system x", "not valid YAML"),
        ("federation.round=5", "did you mean 'rounds'?"),
        ("federation..rounds=5", "unknown key ''"),
        (".rounds=5", "unknown key ''"),
        ("federation.rounds.x=5", "federation.rounds"),
        ("algorithm.mu=0.3", "unknown key 'mu'"),
        ("federation.rounds=many", "(got 'many')"),
    ],
)
def test_a_bad_override_is_named(write, word, reason):
    message = refusal(write(RECIPE + "seed: 4\ntrackers: [wandb]\n"), word)
    assert reason in message
    assert word in message or message.startswith("recipe ")


# ---- paths


def test_a_path_is_taken_from_the_working_folder_else_from_the_recipes(write, tmp_path):
    beside = tmp_path / "recipes" / "rows.jsonl"
    beside.write_text("{}")
    path = write("model: {base: m}\ndata: {train: rows.jsonl}\n")
    assert load_plan(path).data.train == str(beside)
    here = tmp_path / "work" / "rows.jsonl"
    here.write_text("{}")
    assert load_plan(path).data.train == str(here)


def test_every_key_that_may_be_a_path_is_treated_so_and_overrides_too(write, tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / "recipes" / name).write_text("{}")
    for name in ("base", "tok"):
        (tmp_path / "recipes" / name).mkdir()
    path = write("model: {base: base, tokenizer: ./tok}\ndata: {train: a.jsonl}\n")
    plan = load_plan(path, ["data.test=../recipes/b.jsonl"])
    found = (plan.data.train, plan.data.test, plan.model.base, plan.model.tokenizer)
    assert all(os.path.isabs(one) and os.path.exists(one) for one in found)
    assert [os.path.basename(one) for one in found] == ["a.jsonl", "b.jsonl", "base", "tok"]


@pytest.mark.parametrize(
    "pattern", ["*.jsonl", "*/x.jsonl", "**/x.jsonl", "[st]ub/?.jsonl", "s*/*"]
)
def test_a_glob_is_a_path_wherever_its_star_stands(write, tmp_path, pattern):
    (tmp_path / "recipes" / "sub").mkdir()
    (tmp_path / "recipes" / "sub" / "x.jsonl").write_text("{}")
    (tmp_path / "recipes" / "y.jsonl").write_text("{}")
    path = write(f"model: {{base: m}}\ndata: {{train: '{pattern}'}}\n")
    assert load_plan(path).data.train == str(tmp_path / "recipes" / pattern)


@pytest.mark.parametrize(
    "word",
    [
        "owner/name",
        "microworld",
        "''",
        "'  '",
        "gone.jsonl",
        "'*.gone'",
        "a/**/b**",
        "~nobody-of-this-name/x",
        "x" * 5000,
        '"a\\0b"',
        '"a\\0*"',
    ],
)
def test_what_is_no_path_here_is_left_for_the_reader_to_judge(write, word):
    path = write()
    assert load_plan(path, [f"data.train={word}"]).data.train == load_plain(word)


def load_plain(word: str) -> str:
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(word)


def test_a_folder_called_sample_does_not_hide_the_built_in_one(write, tmp_path):
    (tmp_path / "work" / "microworld").mkdir()
    assert load_plan(write()).data.train == "microworld"


# ---- writing

words = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12
) | st.sampled_from(
    [
        "no",
        "1e-4",
        "1",
        "1.0",
        "null",
        "~",
        "true",
        "- a",
        "a: b",
        "#x",
        "0x1f",
        "2020-01-01",
        "'",
        " x ",
        "=",
    ]
)
paths = words.map("gone/{}".format)  # a path that exists would become an absolute one
counts = st.integers(1, 10**6)
shares = st.floats(1e-6, 1.0)
positive = st.floats(1e-9, 1e9)
json_config = st.dictionaries(
    words,
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | words,
        st.lists,
        max_leaves=4,
    ),
)
columns = st.dictionaries(words, words, max_size=3)

models = st.one_of(
    st.fixed_dictionaries(
        {"base": paths},
        optional={"tokenizer": paths, "quantise": st.sampled_from(["int8", "int4"])},
    ),
    json_config.map(lambda more: {"config": {**more, "model_type": "llama"}}),
)
adapters = st.one_of(
    st.fixed_dictionaries(
        {"rank": counts, "alpha": positive | counts},
        optional={"targets": st.lists(words, min_size=1, max_size=3), "dora": st.booleans()},
    ),
    st.fixed_dictionaries({"kind": st.sampled_from(["prefix", "prompt"]), "tokens": counts}),
    st.lists(words, max_size=2).map(lambda t: {"kind": "ia3", "targets": t, "feedforward": t}),
)
partitions = st.one_of(
    st.fixed_dictionaries({"by": st.just("key"), "column": words}),
    st.fixed_dictionaries(
        {"by": st.sampled_from(["dirichlet", "sizes"]), "alpha": positive, "minimum": counts}
    ),
    st.just("shards"),
)
federations = st.fixed_dictionaries(
    {
        "rounds": counts,
        "cohort": shares | st.just(1.0) | st.integers(5, 10),
        "minimum": shares | st.just(1),
    },
    optional={"weight_cap": positive, "unbiased": st.booleans(), "dropout": st.floats(0, 0.99)},
)
plans = st.fixed_dictionaries(
    {
        "model": models,
        "data": st.fixed_dictionaries(
            {"train": paths}, optional={"columns": columns, "test": paths}
        ),
    },
    optional={
        "adapter": adapters,
        "partition": partitions,
        "federation": federations,
        "algorithm": st.one_of(
            st.just("fedavg"), st.fixed_dictionaries({"name": st.just("fedprox"), "mu": positive})
        ),
        "template": words.map(lambda text: {"name": "own", "prompt": text}),
        "local": st.fixed_dictionaries(
            {"lr": positive, "steps": counts}, optional={"clip": st.none()}
        ),
        "trackers": st.lists(st.sampled_from(["wandb", "mlflow"]), unique=True),
        "seed": st.integers(0, 2**70),
        "output": words,
    },
).map(make_plan)


@settings(deadline=None, max_examples=40)
@given(plan=plans)
def test_a_plan_written_and_read_is_the_same_plan(plan, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "plan.yaml"
    path.write_text(dump_plan(plan), encoding="utf-8")
    back = load_plan(path)
    assert back == plan
    assert repr(back) == repr(plan)  # 1 is not 1.0
    assert differences(plan, back) == []
    assert dump_plan(back) == dump_plan(plan)


def test_a_written_plan_holds_every_default():
    text = dump_plan(make_plan({"model": {"base": "m"}, "data": {"train": "microworld"}}))
    for line in (
        "name: run",
        "  rounds: 10",
        "  cohort: 1.0",
        "  lr: 0.0003",
        "seed: 0",
        "output:",
    ):
        assert line in text.splitlines()


def plan(**sections):
    return make_plan({"model": {"base": "m"}, "data": {"train": "microworld"}, **sections})


def test_differences_name_keys_and_both_values():
    old = plan(algorithm="fedprox", partition={"by": "dirichlet", "alpha": 0.5}, seed=1)
    new = plan(partition={"by": "dirichlet", "alpha": 0.7}, seed=2, output="x")
    assert differences(old, new) == [
        "algorithm.mu: 0.01 → None",
        "algorithm.name: 'fedprox' → 'fedavg'",
        "output: None → 'x'",
        "partition.alpha: 0.5 → 0.7",
        "seed: 1 → 2",
    ]
    assert differences(old, old) == []


def test_one_client_and_all_clients_differ():
    one, everyone = (plan(federation={"cohort": c, "minimum": 1}) for c in (1, 1.0))
    assert differences(one, everyone) == ["federation.cohort: 1 → 1.0"]


def test_no_columns_and_an_empty_mapping_differ():
    none, empty = (plan(data={"train": "microworld", "columns": c}) for c in (None, {}))
    assert differences(none, empty) == ["data.columns: None → {}"]


def test_differences_reach_into_a_made_models_config():
    def made(size):
        return make_plan(
            {
                "model": {"config": {"model_type": "llama", "size": size}},
                "data": {"train": "microworld"},
            }
        )

    assert differences(made(8), made(16)) == ["model.config.size: 8 → 16"]


def test_a_study_given_as_a_recipe_is_told_from_one():
    with pytest.raises(InputError, match=r"demo\.yaml: is a study.*fedit study"):
        load_plan(Path(__file__).parent.parent / "recipes" / "demo.yaml")
