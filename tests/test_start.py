"""Nothing heavy is imported before a command needs it; seconds are benchmarks/start.py's."""

import json
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

MODELS = {"torch", "transformers", "peft", "tokenizers", "safetensors", "bitsandbytes"}
HEAVY = MODELS | {
    *("datasets", "pyarrow", "pandas", "matplotlib", "scipy", "sklearn", "numpy"),
    *("pydantic", "ruamel", "gradio", "mlflow", "wandb"),
}
COMMAND = """
import json, sys
from fedit.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps(list(sys.modules)), file=sys.stderr)
"""
IMPORT = "import fedit, json, sys; print(json.dumps(list(sys.modules)), file=sys.stderr)"


def loaded(code: str, *words: str) -> set[str]:
    """Top-level modules that a fresh interpreter has in the end."""
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
    )
    return {name.partition(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}


def test_importing_fedit_imports_nothing_heavy():
    found = loaded(IMPORT)
    assert "fedit" in found
    assert not found & (HEAVY | {"typer", "rich"})


@pytest.mark.parametrize(
    "words",
    [
        *(["--help"], ["--version"], ["run", "--help"]),
        *(["estimate", "--help"], ["study", "--help"], ["chat", "--help"]),
    ],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(words):
    found = loaded(COMMAND, *words)
    assert "typer" in found
    own = set() if words[0].startswith("--") else {"pydantic"}  # typer's, for a command's options
    assert not found & (HEAVY - own)


@pytest.mark.parametrize(
    "words",
    [["run", "recipes/microworld.yaml", "--dry-run"], ["partition", "recipes/microworld.yaml"]],
    ids=["dry run", "partition"],
)
def test_what_needs_no_model_imports_no_model_library(words):
    found = loaded(COMMAND, *words)
    assert "pydantic" in found
    assert not found & (MODELS | {"datasets", "matplotlib", "sklearn"})
