"""From a plan to its parts: the one place where a user's words become objects."""

from fedit.build.hosting import PRELOAD, on_workers
from fedit.build.job import Job, build
from fedit.build.model import forward_of, make_adapter, make_base
from fedit.build.words import make_template

__all__ = [
    "PRELOAD",
    "Job",
    "build",
    "forward_of",
    "make_adapter",
    "make_base",
    "make_template",
    "on_workers",
]
