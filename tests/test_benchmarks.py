"""Benchmarks are not run by tests; what they take from fedit must be there."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))


def missing(source: str) -> list[str]:
    """Names that the source takes from fedit and that are not there."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(one.name, None) for one in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found += [(node.module, one.name) for one in node.names]
    return [
        ".".join(filter(None, pair))
        for pair in found
        if pair[0].split(".")[0] == "fedit" and not is_there(*pair)
    ]


def is_there(module: str, name: str | None) -> bool:
    try:
        owner = importlib.import_module(module)
        if name is not None and not hasattr(owner, name):
            importlib.import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return False
    return True


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_compiles_and_what_it_imports_is_there(path):
    source = path.read_text(encoding="utf-8")
    compile(source, str(path), "exec")
    assert missing(source) == []


def test_what_is_not_there_is_found():
    source = "def late():\n    from fedit.train.forward import make_forward, gone\nimport fedit.nowhere\n"
    assert sorted(missing(source)) == ["fedit.nowhere", "fedit.train.forward.gone"]
    assert missing("from fedit import build, Run\nimport fedit.build\nimport gone") == []


def test_make_bench_runs_every_benchmark():
    text = (ROOT / "scripts" / "bench.sh").read_text(encoding="utf-8")
    run = set(re.findall(r"^ *bench (\w+\.py)", text, re.MULTILINE))
    assert run == {path.name for path in SCRIPTS}
