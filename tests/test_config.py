import json

import pytest
from pydantic import BaseModel, ValidationError

from fedit import config
from fedit.config import Plan
from fedit.config.algorithm import NAMES
from fedit.core.errors import InputError
from fedit.recipe import make_plan

MADE = {"config": {"model_type": "llama"}}


def plan(**sections) -> Plan:
    return make_plan({"model": {"base": "m"}, "data": {"train": "microworld"}, **sections})


def refusal(**sections) -> str:
    with pytest.raises(InputError) as caught:
        plan(**sections)
    return str(caught.value)


def at(path: str, value) -> dict:
    """{"a": {"b": value}} for "a.b"."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


# ---- unknown keys


@pytest.mark.parametrize(
    ("sections", "wrong", "meant"),
    [
        ({"federatoin": {}}, "federatoin", "federation"),
        ({"model": {"base": "m", "precison": "fp32"}}, "precison", "precision"),
        ({"adapter": {"rnak": 4}}, "rnak", "rank"),
        ({"adapter": {"kind": "ia3", "target": []}}, "target", "targets"),
        ({"adapter": {"kind": "prefix", "token": 3}}, "token", "tokens"),
        ({"data": {"train": "microworld", "holdout": {"sise": 3}}}, "sise", "size"),
        ({"template": {"max_lenght": 99}}, "max_lenght", "max_length"),
        ({"partition": {"cleints": 3}}, "cleints", "clients"),
        ({"partition": {"by": "dirichlet", "alfa": 3}}, "alfa", "alpha"),
        ({"partition": {"by": "key", "colum": "source"}}, "colum", "column"),
        ({"federation": {"round": 3}}, "round", "rounds"),
        ({"local": {"learning": 1, "step": 3}}, "learning", None),
        ({"local": {"step": 3}}, "step", "steps"),
        ({"algorithm": {"name": "fedprox", "mmu": 1}}, "mmu", "mu"),
        ({"evaluation": {"limits": 3}}, "limits", "limit"),
        ({"zzzz": 1}, "zzzz", None),
        ({7: 1}, 7, None),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(sections, wrong, meant):
    with pytest.raises(InputError) as caught:
        make_plan({"model": {"base": "m"}, "data": {"train": "microworld"}, **sections})
    message = str(caught.value)
    assert f"unknown key {wrong!r}" in message
    assert ("remove it" if meant is None else f"did you mean {meant!r}?") in message


@pytest.mark.parametrize(
    ("key", "word", "meant"),
    [
        ("adapter.kind", "lorra", "lora"),
        ("partition.by", "dirichle", "dirichlet"),
        ("algorithm.name", "fedporx", "fedprox"),
        ("algorithm.name", "quantum", None),
        ("engine.kind", "worker", "workers"),
    ],
)
@pytest.mark.parametrize("one_word", [False, True])
def test_an_unknown_word_is_named_with_the_nearest_known_one(key, word, meant, one_word):
    section = key.partition(".")[0]
    message = refusal(**({section: word} if one_word else at(key, word)))
    assert message.startswith(f"plan: {key}: ")
    assert message.endswith(f"(got {word!r})")
    assert "known here: " in message
    assert (f"did you mean {meant!r}?" in message) == (meant is not None)


# ---- one-word forms


def test_sections_with_a_name_may_be_one_word_or_leave_the_name_out():
    short = plan(algorithm="fedprox", template="vicuna", adapter="bitfit", partition="sizes")
    long = plan(
        algorithm={"name": "fedprox"},
        template={"name": "vicuna"},
        adapter={"kind": "bitfit"},
        partition={"by": "sizes"},
    )
    assert short == long
    assert plan(adapter={"rank": 4}).adapter == config.Lora(rank=4)
    assert plan(partition={"clients": 4}).partition == config.Iid(clients=4)
    assert plan(template={"max_length": 99}).template.name == "alpaca"


def test_defaults_are_whole_plans_of_their_own():
    assert plan() == plan(
        adapter={}, partition={}, federation={}, local={}, algorithm={}, evaluation={}, template={}
    )
    assert (plan().local.epochs, plan(local={"steps": 3}).local.epochs) == (1, None)
    assert plan(local={"epochs": None, "steps": None}).local.epochs == 1


# ---- values


@pytest.mark.parametrize("amount", [1, 3, 1.0, 0.29, 1e-3])
def test_an_amount_keeps_its_kind(amount):
    """1 is one client, 1.0 is all of them."""
    got = plan(federation={"cohort": amount, "minimum": 0.5}).federation.cohort
    assert (type(got), got) == (type(amount), amount)


@pytest.mark.parametrize(
    "amount", [0, -1, 0.0, 1.5, float("nan"), float("inf"), "3", None, [1], {}]
)
def test_what_is_no_amount_is_refused_by_key_and_value(amount):
    message = refusal(federation={"cohort": amount})
    assert message.startswith("plan: federation.cohort: must be a count")
    assert message.endswith(f"(got {amount!r})") or amount == {}


@pytest.mark.parametrize(
    "path",
    [
        "federation.cohort",
        "federation.rounds",
        "local.lr",
        "seed",
        "data.holdout.size",
        "adapter.alpha",
    ],
)
@pytest.mark.parametrize("value", [True, False])
def test_true_is_no_number(path, value):
    section, _, key = path.rpartition(".")
    tree = at(path, value)
    if section.startswith("data"):
        tree["data"]["train"] = "microworld"
    message = refusal(**tree)
    assert f"{key} takes no true or false (got {value})" in message
    assert message.startswith(f"plan: {section}: " if section else "plan: ")


@pytest.mark.parametrize(
    ("path", "value", "word"),
    [
        ("local.lr", float("inf"), "finite"),
        ("local.lr", float("nan"), "finite"),
        ("local.lr", 0, "greater than 0"),
        ("local.lr", "fast", "number"),
        ("local.clip", 0, "greater than 0"),
        ("local.warmup", -1, "greater than or equal to 0"),
        ("federation.rounds", 0, "greater than or equal to 1"),
        ("federation.rounds", 2.5, "integer"),
        ("federation.rounds", {"x": 1}, "integer"),
        ("federation.dropout", 1, "less than 1"),
        ("federation.sampler", "unifrm", "'uniform', 'multinomial' or 'poisson'"),
        ("model.device", 3, "string"),
        ("template.prompt", [1], "string"),
        ("template.max_length", 15, "greater than or equal to 16"),
        ("adapter.targets", 3, "all-linear or a list"),
        ("adapter.targets", "q_proj", "all-linear or a list"),
        ("adapter.targets", [], "all-linear or a list"),
        ("adapter.targets", ["q_proj", 1], "all-linear or a list"),
        ("partition.validation", 1, "less than 1"),
        ("gate.norm", 0, "greater than 0"),
        ("gate.factors", -1, "greater than 0"),
        ("gate.times_median", 1, "greater than 1"),
        ("evaluation.every", 0, "greater than or equal to 1"),
        ("federation", 5, "section"),
        ("federation", None, "section"),
        ("adapter", [1], "section"),
        ("data", "rows.jsonl", "section"),
        ("trackers", "wandb", "list"),
        ("seed", -1, "greater than or equal to 0"),
        ("name", "a b", "match pattern"),
        ("name", "../up", "match pattern"),
        ("engine", 3, "section"),
    ],
)
def test_a_bad_value_is_refused_by_key_value_and_reason(path, value, word):
    tree = at(path, value)
    if path.startswith("model."):
        tree["model"]["base"] = "m"
    message = refusal(**tree)
    assert message.startswith(f"plan: {path}: ")
    assert word in message
    assert message.endswith(f"(got {value!r})")
    assert "\n" not in message


def test_keys_that_are_also_names_of_kinds_are_not_lost_from_the_message():
    assert refusal(partition={"by": "shards", "shards": 0}).startswith("plan: partition.shards: ")
    assert refusal(trackers=["wandb", "x"]).startswith("plan: trackers.1: ")
    message = refusal(data={"train": "microworld", "columns": {"prompt": 3}})
    assert message.startswith("plan: data.columns.prompt: ")


def test_what_is_missing_is_named():
    with pytest.raises(InputError) as caught:
        make_plan({"partition": "key"})
    lines = str(caught.value).splitlines()
    assert lines == [
        f"plan: {key}: is required, and not given" for key in ("model", "data", "partition.column")
    ]


# ---- impossible combinations

IMPOSSIBLE = {
    "no base": ({"model": {}}, "model: give either base .* or config"),
    "two bases": ({"model": {"base": "m", **MADE}}, "model: give either base .* or config"),
    "config of no type": (
        {"model": {"config": {"hidden_size": 8}}},
        "model: config needs model_type",
    ),
    "config type a number": (
        {"model": {"config": {"model_type": 3}}},
        "model: config needs model_type",
    ),
    "quantised nothing": ({"model": {**MADE, "quantise": "int8"}}, "quantise needs saved weights"),
    "config not JSON": (
        {"model": {"config": {"model_type": "llama", "eps": float("nan")}}},
        "model: config must hold plain JSON",
    ),
    "config with number keys": (
        {"model": {"config": {"model_type": "llama", "id2label": {0: "a"}}}},
        "model: config must hold plain JSON",
    ),
    "ia3 half told": (
        {"adapter": {"kind": "ia3", "targets": ["a"]}},
        "adapter: give targets and feedforward together",
    ),
    "two tests": (
        {"data": {"train": "microworld", "test": "t.jsonl", "holdout": {"size": 3}}},
        "data: give test .* or holdout .*not both",
    ),
    "own without prompt": ({"template": "own"}, "template: name: own needs prompt"),
    "prompt without own": (
        {"template": {"name": "vicuna", "prompt": "{instruction}"}},
        "template: prompt and answer belong to name: own, not to name: vicuna",
    ),
    "answer without own": ({"template": {"answer": "{response}"}}, "belong to name: own"),
    "minimum above cohort": (
        {"federation": {"cohort": 2, "minimum": 3}},
        "federation: minimum 3 is more than cohort 2: lower it",
    ),
    "minimum above a share": (
        {"federation": {"cohort": 0.5, "minimum": 6}},
        r"federation\.minimum 6 is more than the 5 clients that federation\.cohort 0\.5 asks",
    ),
    "epochs and steps": ({"local": {"epochs": 1, "steps": 1}}, "local: give epochs or steps"),
    "micro-batch": (
        {"local": {"batch": 8, "micro_batch": 3}},
        "local: micro_batch 3 does not divide batch 8",
    ),
    "momentum of AdamW": (
        {"local": {"momentum": 0.9}},
        "local: momentum belongs to optimizer: sgd",
    ),
    "cohort above clients": (
        {"federation": {"cohort": 11}},
        r"federation\.cohort 11 is more than partition\.clients 10: lower it",
    ),
    "warm-up without end": (
        {"federation": {"rounds": 3}, "local": {"warmup": 3}},
        r"local\.warmup 3\.0 must be less than federation\.rounds 3",
    ),
    "full, quantised": (
        {"adapter": "full", "model": {"base": "m", "quantise": "int4"}},
        r"adapter\.kind full trains base weights in fp32: drop model\.quantise",
    ),
    "bitfit in bf16": (
        {"adapter": "bitfit", "model": {"base": "m", "precision": "bf16"}},
        r"adapter\.kind bitfit .* or use adapter\.kind lora",
    ),
    "prefix, checkpointed": (
        {"adapter": "prefix", "model": {"base": "m", "gradient_checkpointing": True}},
        r"adapter\.kind prefix cannot run with model\.gradient_checkpointing",
    ),
    "moments of redrawn factors": (
        {"algorithm": "flora", "local": {"keep_optimizer": True}},
        r"local\.keep_optimizer .*algorithm flora makes other ones .*hetlora",
    ),
    "a bound on ifca": (
        {"algorithm": "ifca", "gate": {"norm": 1}},
        "gate bounds an update by what the client received, and with algorithm ifca",
    ),
    "factors of no LoRA": (
        {"adapter": "bitfit", "gate": {"factors": 1}},
        r"gate\.factors is for LoRA's A and B, which adapter\.kind bitfit has not: give gate\.norm",
    ),
    "clients without validation": (
        {"evaluation": {"clients": True}},
        r"evaluation\.clients needs partition\.validation > 0",
    ),
}

POSSIBLE = {
    "made": {"model": MADE},
    "ia3": {"adapter": {"kind": "ia3", "targets": ["a"], "feedforward": ["a"]}},
    "own": {"template": {"name": "own", "prompt": "{instruction}", "answer": "{response}"}},
    "minimum at cohort": {"federation": {"cohort": 3, "minimum": 3}},
    "minimum at share": {"federation": {"cohort": 0.5, "minimum": 5}},
    "micro-batch": {"local": {"batch": 8, "micro_batch": 4}},
    "sgd": {"local": {"momentum": 0.9, "optimizer": "sgd"}},
    "cohort of all": {"federation": {"cohort": 10}},
    "cohort, clients unknown": {
        "federation": {"cohort": 99},
        "partition": {"by": "key", "column": "x"},
    },
    "warm-up": {"federation": {"rounds": 3}, "local": {"warmup": 2.9}},
    "lora, quantised": {"model": {"base": "m", "quantise": "int4", "precision": "bf16"}},
    "prompt, checkpointed": {
        "adapter": "prompt",
        "model": {"base": "m", "gradient_checkpointing": True},
    },
    "moments of factors that stay": {"algorithm": "hetlora", "local": {"keep_optimizer": True}},
    "a bound": {"adapter": "bitfit", "gate": {"norm": 1}},
    "a bound on factors": {"gate": {"factors": 1}},
    "clients": {"evaluation": {"clients": True}, "partition": {"validation": 0.1}},
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_an_impossible_combination_is_refused_before_anything_loads(case):
    sections, message = IMPOSSIBLE[case]
    with pytest.raises(InputError, match=message):
        plan(**sections)


@pytest.mark.parametrize("case", POSSIBLE)
def test_its_possible_neighbour_is_not(case):
    assert plan(**POSSIBLE[case])


def test_all_impossible_combinations_are_told_at_once():
    message = refusal(federation={"cohort": 11}, evaluation={"clients": True}, local={"warmup": 10})
    for word in ("federation.cohort", "local.warmup", "evaluation.clients"):
        assert word in message


# ---- frozen


def sections(of: BaseModel):
    yield of
    for name in type(of).model_fields:
        if isinstance(inner := getattr(of, name), BaseModel):
            yield from sections(inner)


def test_no_part_of_a_plan_can_be_changed():
    found = list(sections(plan(data={"train": "microworld", "holdout": {"size": 3}})))
    assert len(found) == 14
    for section in found:
        name = next(iter(type(section).model_fields))
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, name, getattr(section, name))
        with pytest.raises(ValidationError, match=r"frozen|no field"):
            section.another = 1


def test_every_default_has_the_type_that_reading_it_back_gives():
    written = plan().model_dump(mode="json")
    assert repr(make_plan(json.loads(json.dumps(written)))) == repr(plan())


def test_the_run_folder_is_the_output_or_named_after_the_run():
    assert str(plan(name="a").folder) == "runs/a"
    assert str(plan(name="a", output="/x/y").folder) == "/x/y"


def test_an_alias_bomb_is_refused_at_once(tmp_path):
    from fedit import load_plan

    lines = ["a0: &a0 [x, x]"] + [
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)
    ]
    bomb = "model: {config: {model_type: llama, x: *a8}}\ndata: {train: microworld}\n"
    (tmp_path / "bomb.yaml").write_text("\n".join(lines) + "\n" + bomb)
    with pytest.raises(InputError, match="aliases"):
        load_plan(tmp_path / "bomb.yaml")


def test_a_fault_of_the_servers_optimizer_is_named_by_the_key_one_writes():
    said = refusal(algorithm={"name": "fedprox", "server": {"name": "fedadam", "lr": -1}})
    assert "algorithm.server.lr: " in said
    assert "(got -1)" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"algorithm": {"name": "fedprox", "mu": -1}},
            "algorithm.mu: Input should be greater than or equal to 0; set it to at least 0 (got -1)",
        ),
        ({"local": {"lr": 0}}, "local.lr: Input should be greater than 0; set it above 0 (got 0)"),
        (
            {"federation": {"dropout": 1}},
            "federation.dropout: Input should be less than 1; set it below 1 (got 1)",
        ),
        (
            {"adapter": {"rank": 4, "ranks": {"tiers": [0, 4]}}},
            "adapter.ranks.tiers.0: Input should be greater than or equal to 1; set it to at least 1 (got 0)",
        ),
        ({"adapter": {"rank": 4, "ranks": {"tiers": []}}}, "give at least 1 (got [])"),
        (
            {"adapter": {"rank": 4, "ranks": {"tiers": [4, 2]}}},
            "adapter.ranks: tiers [4, 2] must rise: list each rank once, the lowest first",
        ),
        (
            {"adapter": {"rank": 4, "ranks": {"tiers": [2, 4], "shares": [1]}}},
            "adapter.ranks: shares [1.0] are 1 for the 2 tiers [2, 4]: give one for each tier, or leave",
        ),
        (
            {"adapter": {"rank": 4, "ranks": {"tiers": [2, 3]}}},
            "must be the highest of ranks.tiers [2, 3]: set rank to 3, or let the tiers end with 4",
        ),
        (
            {"algorithm": {"name": "fedper", "personal": ["lora_B", " "]}},
            "algorithm.personal: an empty text is part of every name, so nothing would be shared: give",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
def test_a_refusal_says_what_to_do(changes, said):
    assert said in refusal(**changes)


def test_every_algorithm_has_its_name_here():
    assert {"fedavg", "fedadam", "rolora", "ifca", "external"} < set(NAMES)
    assert len(NAMES) == len(set(NAMES))
    for name in set(NAMES) - {"external", "fedper", "fedrep", "scaffold"}:
        assert plan(algorithm=name).algorithm.name == name
