"""The page in a real browser: answers in every column, nothing fetched from elsewhere, text as text."""

import importlib.util
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fedit.chat import web
from fedit.chat.models import Mount, open_voices
from fedit.chat.talk import Talk
from fedit.chat.visit import Visit
from fedit.core.errors import InputError
from fedit.printable import printable

NEW = 200
HOSTILE = (
    "<script>window.pwned=1</script><img src=x onerror=window.pwned=1> <b>bold</b> "
    "![i](http://example.org/i.png) [l](http://example.org) ${window.pwned=1} {{value}} "
    "\x1b[31m `code` http://example.org &amp;"
)

# gradio about its own parts
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def voices(study):
    return open_voices(study, ["base", "local:12"])


@pytest.fixture(scope="module")
def address(voices) -> Iterator[str]:
    if importlib.util.find_spec("gradio") is None:
        reason = "needs gradio: pip install 'fedit[web]'"
        if os.environ.get("FEDIT_REQUIRE_BROWSER") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    called: list[str] = []
    connect = socket.socket.connect

    def watched(self: socket.socket, where: Any) -> None:
        called.append(str(where[0]))
        connect(self, where)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", watched)
        page = web.launch(Talk(voices, NEW), "127.0.0.1", 0)
        yield page.local_url
        page.close(verbose=False)
    assert set(called) <= {"127.0.0.1"}  # it asks gradio's makers nothing and tells them nothing


@pytest.fixture
def opened(browser, address):
    """`opened()` is a visitor's page; whatever it complains of or fetches elsewhere fails the test."""
    pages, troubles = [], []

    def visit(width: int = 1280):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("console", lambda m: troubles.append(f"{m.type}: {m.text}"))
        page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        page.on("request", lambda r: None if local(r.url) else troubles.append(f"fetched {r.url}"))
        page.on(
            "response",
            lambda r: troubles.append(f"{r.status} {r.url}") if r.status >= 400 else None,
        )
        pages.append(page)
        page.goto(address)
        page.wait_for_selector(".model")
        return page

    def local(url: str) -> bool:
        return url.startswith((address, "data:", "blob:", address.replace("http", "ws")))

    yield visit
    for page in pages:
        page.close()
    assert troubles == []


def ask(page, question: str, passage: str = "") -> None:
    page.get_by_label("Passage").fill(passage)
    page.get_by_label("Question").fill(question)
    page.get_by_label("Question").press("Enter")


def columns(page, answers: int) -> list[list[str]]:
    """What each column says, once it has so many answers and nothing is being made."""
    page.wait_for_function(
        "n => document.querySelectorAll('.answer, .nothing').length == n"
        " && !document.querySelector('.doing').textContent.includes('answers …')",
        arg=answers,
        timeout=20_000,
    )
    models = page.locator(".model").all()
    return [[spaced(text) for text in model.locator("p").all_inner_texts()] for model in models]


def spaced(text: str) -> str:
    """Words parted by single spaces, as white space is drawn in its own ways."""
    return " ".join(printable(text).split())


def alone(voices, *questions: str) -> list[list[str]]:
    """The questions and answers of a chat without a page."""
    talk = Talk(voices, NEW)
    said: list[list[str]] = [[] for _ in voices]
    for question in questions:
        replies = talk.ask(question)
        for column, reply in zip(said, replies, strict=True):
            *_, last = reply
            column += [question, spaced(last) or "said nothing"]
        talk.keep(replies)
    return said


@pytest.mark.slow
def test_every_model_answers_in_its_column(opened, voices):
    page = opened()
    names = [voice.name for voice in voices]
    assert page.locator(".model strong").all_inner_texts() == names
    ask(page, "Name a river.")
    columns(page, 3)
    assert page.get_by_label("Question").input_value() == ""
    ask(page, "And a hill?")
    assert columns(page, 6) == alone(voices, "Name a river.", "And a hill?")
    page.get_by_role("button", name="New conversation").click()
    assert columns(page, 0) == [[], [], []]


@pytest.mark.slow
def test_what_models_say_is_text_and_loads_nothing(opened, script):
    script(HOSTILE)
    page = opened(400)
    ask(page, HOSTILE, passage=HOSTILE)
    assert columns(page, 3) == [[spaced(HOSTILE)] * 3] * 3
    assert page.evaluate("window.pwned") is None
    assert page.locator(".said :is(img, script, a, b, code)").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.slow
def test_two_visitors_get_their_own_answers(opened, voices):
    one, two = opened(), opened()
    ask(one, "Name a river.")
    ask(two, "And a hill?")
    for page, question in ((one, "Name a river."), (two, "And a hill?")):
        assert columns(page, 3) == alone(voices, question)


@pytest.mark.slow
def test_an_answer_can_be_stopped(opened, monkeypatch):
    """The first model talks until it is told to stop; the others are not asked any more."""

    class Endless:
        def generate(self, *, input_ids, streamer, stopping_criteria, **_):
            streamer.put(input_ids)
            while not bool(stopping_criteria(input_ids, None).all()):
                streamer.put(input_ids[0, :1])
                threading.Event().wait(0.01)

    @contextmanager
    def wearing(self: Mount, adapter: object) -> Iterator[Endless]:
        with self.lock:
            yield Endless()

    monkeypatch.setattr(Mount, "wearing", wearing)
    page = opened()
    ask(page, "Name a river.")
    page.wait_for_function("document.querySelector('.doing').textContent.includes('answers …')")
    page.get_by_role("button", name="Stop").click()
    assert [len(column) for column in columns(page, 1)] == [2, 1, 1]


def test_a_visit_shows_text_as_text(voices, script):
    script(HOSTILE)
    visit = Visit(Talk(voices, NEW))
    doing = list(visit.ask("one", "a passage"))
    assert doing[0] == "fedit answers …"
    page = visit.html("<i>")
    assert page.count("<p ") == 9
    for bad in ("<script", "<img", "<b>", "<i>", "\x1b", "{", "}", "$", "`"):
        assert bad not in page
    visit.clear()
    assert "<p " not in visit.html()


def test_what_is_not_this_machine_alone_is_warned_of():
    assert web.warning("127.0.0.1") == web.warning("localhost") == web.warning("::1") == ""
    for host in ("0.0.0.0", "::", "192.168.0.7", "example.org"):
        assert f"--host {host}: everyone" in web.warning(host)


def test_without_gradio_the_remedy_is_told(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'fedit\[web\]'"):
        web.need_gradio()


def test_a_port_that_is_taken_is_refused(address, voices, monkeypatch):
    import gradio

    def launch(self: object, **_: object) -> None:
        raise OSError("taken")

    monkeypatch.setattr(gradio.Blocks, "launch", launch)
    with pytest.raises(InputError, match="--port 7860: cannot be listened on"):
        web.launch(Talk(voices), "127.0.0.1", 7860)
