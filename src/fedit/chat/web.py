"""A chat in the browser: a column a model, on this machine only, with nothing fetched from elsewhere."""

import importlib.util
import ipaddress
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from fedit.chat.talk import Talk
from fedit.chat.visit import STYLE, Visit
from fedit.core.errors import InputError

_PICTURES = 10  # a second, while an answer grows
_FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported


def need_gradio() -> None:
    """Refuse at once where the extra is not installed. Raises InputError."""
    if importlib.util.find_spec("gradio") is None:
        raise InputError("--web: needs gradio; pip install 'fedit[web]'")


def serve(talk: Talk, host: str = "127.0.0.1", port: int = 7860) -> None:
    """Serve the page until interrupted. Raises InputError for an address that cannot be listened on."""
    page = launch(talk, host, port)
    print(f"chat at {page.local_url} - Ctrl-C ends", file=sys.stderr)  # noqa: T201
    try:
        while True:
            time.sleep(3600)
    finally:
        page.close(verbose=False)


def launch(talk: Talk, host: str, port: int) -> Any:
    """The page, served in the background."""
    if told := warning(host):
        print(told, file=sys.stderr)  # noqa: T201
    import gradio

    page = _page(talk)
    try:
        page.launch(
            server_name=host,
            server_port=port or _free(host),
            share=False,
            inbrowser=False,
            prevent_thread_lock=True,
            quiet=True,
            show_error=True,
            footer_links=[],
            theme=gradio.themes.Base(**_FONTS),
            css=STYLE,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            max_file_size=1,
        )
    except OSError:
        raise InputError(
            f"--host {host} --port {port}: cannot be listened on; another program may have the port, "
            "--port 0 takes a free one, and the host must be an address of this machine"
        ) from None
    return page


def _page(talk: Talk) -> Any:
    import gradio

    def begin() -> tuple[Visit, str]:
        visit = Visit(talk)
        return visit, visit.html()

    def ask(visit: Visit, question: str, context: str, temperature: float) -> Iterator[list[str]]:
        if not question.strip():
            yield [question, context, visit.html("Type a question first.")]
            return
        visit.talk.temperature = float(temperature or 0)
        drawn = 0.0
        for doing in visit.ask(question.strip(), context):
            if time.monotonic() - drawn > 1 / _PICTURES:
                yield ["", "", visit.html(doing)]
                drawn = time.monotonic()
        yield ["", "", visit.html(" · ".join(visit.talk.told()))]

    def stop(visit: Visit) -> None:
        visit.stop()

    def clear(visit: Visit) -> list[str]:
        visit.clear()
        return ["", "", visit.html()]

    with gradio.Blocks(title="fedit chat", analytics_enabled=False, fill_width=True) as page:
        visit = gradio.State()
        said = gradio.HTML(js_on_load=None)
        question = gradio.Textbox(label="Question", placeholder="Enter asks", max_lines=8)
        with gradio.Row():
            context = gradio.Textbox(
                label="Passage",
                placeholder="what the question is about",
                lines=2,
                max_lines=8,
                scale=3,
            )
            temperature = gradio.Slider(
                0, 2, talk.temperature, step=0.1, label="Temperature", info="0: the likeliest token"
            )
        with gradio.Row():
            asker = gradio.Button("Ask", variant="primary")
            stopper, clearer = gradio.Button("Stop"), gradio.Button("New conversation")
        shown = [question, context, said]
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        page.load(begin, None, [visit, said], **quiet)
        gradio.on(
            [question.submit, asker.click],
            ask,
            [visit, question, context, temperature],
            shown,
            concurrency_limit=8,  # visitors; a Mount lets them have one answer at a time
            trigger_mode="once",
            **quiet,
        )
        stopper.click(stop, visit, None, queue=False, **quiet)
        clearer.click(clear, visit, shown, queue=False, **quiet)
    return page


def warning(host: str) -> str:
    """What to tell of an address that others can reach; "" for this machine's own."""
    try:
        own = ipaddress.ip_address(host).is_loopback
    except ValueError:
        own = host == "localhost"
    open_to_all = (
        "everyone who can reach this machine may talk with the models: there is no password"
    )
    return "" if own else f"warning: --host {host}: {open_to_all}"


def _free(host: str) -> int:
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.bind((host, 0))
        port: int = listening.getsockname()[1]
        return port
