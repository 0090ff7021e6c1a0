"""The command line; each module of this package adds its commands to the one application."""

import signal
import sys

from fedit.cli import (  # noqa: F401 - each adds its commands
    chat,
    compare,
    estimate,
    federate,
    microworld,
    network,
    report,
    study,
)
from fedit.cli.app import app
from fedit.core.errors import FeditError
from fedit.printable import printable

__all__ = ["app", "main"]


def main() -> None:
    """Entry point: a user's mistake ends in one message and exit code 2, an interrupt in 130."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except FeditError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"error: {printable(str(error))}; what was finished before is safe", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
