"""What the tests of pages share: a real browser, and a study written by hand."""

from pathlib import Path

import pytest

from tests.report import made


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Path:
    """A finished study; tests that change it copy it first."""
    return made.study(tmp_path_factory.mktemp("study") / "made")
