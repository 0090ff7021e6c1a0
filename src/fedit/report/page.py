"""A report's page as one HTML file that loads nothing from anywhere."""

from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files

from jinja2 import BaseLoader, Environment, StrictUndefined, select_autoescape
from markupsafe import Markup

from fedit.report.blocks import Page
from fedit.report.words import visible

MARK = '<meta name="generator" content="fedit report">'
"""What every page holds near its beginning: a file without it is somebody else's."""


def render(page: Page) -> str:
    """The page as HTML: all text escaped, the one script named by its hash in the page's own policy."""
    script = _resource("page.js")
    digest = b64encode(sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    html = _environment().from_string(_resource("page.html.j2"))
    filled = html.render(
        page=page,
        policy=policy,
        mark=Markup(MARK),  # noqa: S704 - our own words
        style=Markup(_resource("page.css")),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
    )
    return filled.encode("utf-8", "replace").decode()  # an unpaired surrogate has no bytes


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=BaseLoader(),
        autoescape=select_autoescape(default_for_string=True, default=True),
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["drawing"] = Markup  # charts escape the names in them
    return environment


def _shown(value: object) -> object:
    """Whatever text the page is given, without characters that steer a screen."""
    return visible(value) if type(value) is str else value


def _resource(name: str) -> str:
    return (files("fedit.report") / name).read_text(encoding="utf-8")
