"""Words for models, and the folders they mean."""

import json

import pytest

from fedit.chat.names import find, label, run_of
from fedit.core.errors import InputError


def test_a_study_means_its_first_federated_arm_of_the_first_seed(study):
    assert run_of(study) == study / "seed-0" / "fedit"
    assert run_of(study / "seed-0" / "central") == study / "seed-0" / "central"


def test_the_study_file_says_which_arm_and_seed(study, tmp_path):
    tree = json.loads((study / "study.yaml").read_text())
    tree |= {"seeds": [7, 8], "arms": {"central": {}, "mine": {}, "fedit": {}}}
    (tmp_path / "study.yaml").write_text(json.dumps(tree))
    with pytest.raises(InputError, match="seed-7/mine has not been run yet"):
        run_of(tmp_path)
    (tmp_path / "study.yaml").write_text(json.dumps(tree | {"arms": {"central": {}}}))
    with pytest.raises(InputError, match="no federated arm"):
        run_of(tmp_path)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"neither plan\.yaml nor study\.yaml"):
        run_of(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        run_of(tmp_path / "missing")


def test_names_are_arms_clients_the_base_or_folders(study, tmp_path, monkeypatch):
    seed = study / "seed-0"
    run = seed / "fedit"
    assert find(run, "base") == ("base", None)
    assert find(run, "central") == ("central", seed / "central")
    twelve = ("local:client-12", seed / "local" / "client-12")
    assert find(run, "local:client-12") == find(run, "local:12") == twelve
    assert find(run, "local:1")[0] == "local:client-01"  # not client-12
    assert find(seed / "local" / "client-01", "fedit") == ("fedit", run)  # beside a client, too
    assert find(run, str(seed / "central")) == ("central", seed / "central")
    lonely = tmp_path / "lonely"
    lonely.mkdir()
    (lonely / "plan.yaml").touch()
    assert find(run, str(lonely)) == (str(lonely), lonely)
    assert label(lonely) == "lonely"
    monkeypatch.chdir(seed)  # a path from here on is as good
    assert find(run.relative_to(seed), "local:12")[0] == "local:client-12"


@pytest.mark.parametrize("word", ["centrl", "local:7", "local:client-7", "local", "other:1"])
def test_unknown_names_are_refused_with_what_there_is(study, word):
    with pytest.raises(InputError) as refused:
        find(study / "seed-0" / "fedit", word)
    for there in ("base", "central", "fedprox", "local:client-01", "local:client-12"):
        assert there in str(refused.value)
    assert ("did you mean 'central'?" in str(refused.value)) == (word == "centrl")
