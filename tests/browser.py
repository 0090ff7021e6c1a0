"""A real headless Chromium for tests of pages: tests/conftest.py gives every test `browser`."""

import os
import shutil
from collections.abc import Iterator

import pytest

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser() -> Iterator["object"]:
    """Playwright's Browser, with a profile of its own; skipped, or failed in the gate, without one."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None
    if chromium is None or sync_playwright is None:
        missing = "playwright (pip)" if chromium else "chromium (apt-get install chromium)"
        if os.environ.get("FEDIT_REQUIRE_BROWSER") == "1":
            pytest.fail(f"needs a browser: {missing} is missing", pytrace=False)
        pytest.skip(f"needs a browser: {missing} is missing")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, headless=True, args=FLAGS)
        yield opened
        opened.close()
