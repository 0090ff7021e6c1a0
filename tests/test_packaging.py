"""What whoever installs fedit may rely on: pins that fit, no unsafe calls, no machine's paths."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]

PINS = {
    canonicalize_name(name): Version(version)
    for name, version in (
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
}


@pytest.mark.parametrize(
    "text",
    [
        *PYPROJECT["build-system"]["requires"],
        *PROJECT["dependencies"],
        *(
            text
            for extra in PROJECT["optional-dependencies"].values()
            for text in extra
            if not text.startswith("fedit[")  # an extra that takes in other extras
        ),
    ],
)
def test_every_requirement_is_pinned_within_its_range(text: str) -> None:
    requirement = Requirement(text)
    assert requirement.specifier, f"{text}: no lower bound"
    assert PINS[canonicalize_name(requirement.name)] in requirement.specifier


def test_pins_are_plain_releases() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    bad = [x for x in lines if not re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", x)]
    assert not bad, "no address, local path or local version (+cpu) belongs in constraints.txt"


UNSAFE_CALLS = {"eval", "exec", "torch.load", "yaml.load", "yaml.unsafe_load", "os.system"}
UNSAFE_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}


def unsafe(source: str) -> list[str]:
    """Calls and imports in `source` that may run what a file or a message says."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found += [n.name for n in names if n.name.split(".")[0] in UNSAFE_MODULES]
            case ast.ImportFrom(module=str(module), names=names):
                if module.split(".")[0] in UNSAFE_MODULES:
                    found.append(module)
                found += [x for n in names if (x := f"{module}.{n.name}") in UNSAFE_CALLS]
            case ast.Call(func=func, keywords=keywords):
                if (name := ast.unparse(func)) in UNSAFE_CALLS:
                    found.append(name)
                for keyword in keywords:
                    if keyword.arg == "trust_remote_code" and ast.unparse(keyword.value) == "True":
                        found.append("trust_remote_code=True")
                    if keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False":
                        found.append("allow_pickle")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p",
        "from dill import loads",
        "import torch\ntorch.load('x', weights_only=True)",
        "from torch import load",
        "import yaml\nyaml.load(text)",
        "eval(text)",
        "f(trust_remote_code=True)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_the_search_for_unsafe_calls_finds_them(source: str) -> None:
    assert unsafe(source)


def test_the_search_for_unsafe_calls_spares_their_namesakes() -> None:
    assert not unsafe("model.eval()\nYAML(typ='safe').load(text)\nload_file(path)")


def modules() -> list[Path]:
    return sorted((ROOT / "src").rglob("*.py"))


def test_there_is_source_to_search() -> None:
    assert len(modules()) > 5


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_nothing_read_can_run_code(path: Path) -> None:
    assert not unsafe(path.read_text())


# The first letters of folders are kept apart from the rest so that this file does not find itself.
MACHINE_PATH = re.compile(r"(?<![\w.-])/(?:w" "ork|r" "oot|h" "ome|o" "pt)/[a-z.]")


def test_no_file_names_a_path_of_one_machine() -> None:
    assert MACHINE_PATH.search("see /" + "work/shared/data"), "the search must be able to fail"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue  # a picture, or a file deleted but not yet committed as such
        found += [f"{name}: {line}" for line in text.splitlines() if MACHINE_PATH.search(line)]
    assert not found
