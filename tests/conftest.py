"""What every test stands on: no network, one thread a worker, and the shared data folder."""

import os
import signal
from pathlib import Path

import pytest

from tests.browser import browser  # noqa: F401 - a fixture, once for all folders: one may run at a time

# Set before anything imports torch, transformers or matplotlib, which read them once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"
if "PYTEST_XDIST_WORKER" in os.environ:  # workers side by side: one thread each, or they fight
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

# Started in the background, a shell has Ctrl-C ignored, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No test can see a power cut, and each run asks for some thirty.
os.fsync = lambda opened: None

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data: $FEDIT_SHARED, or `shared` beside the checkout."""
    folder = Path(os.environ.get("FEDIT_SHARED") or REPOSITORY.parent / "shared")
    if not (folder / "data").is_dir():
        reason = "needs the shared data folder (set FEDIT_SHARED)"
        if os.environ.get("FEDIT_REQUIRE_SHARED") == "1":
            pytest.fail(f"{reason}: {folder}/data is no folder", pytrace=False)
        pytest.skip(reason)
    return folder
