"""How NVFlare's processes are started, and what our server asks of NVFlare's: who is there, carry our job."""

import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nvflare.fuel.flare_api.flare_api import new_secure_session
from nvflare.fuel.hci.proto import MetaStatusValue

from fedit.core.errors import FeditError, brief
from fedit.engines.nvflare.kits import account

_PULSE = 4  # seconds between two signs of life of a site, which so learns that a server is new


def server_command(kit: Path) -> list[str]:
    """The command line of NVFlare's server process."""
    return _command("server", kit, ())


def client_command(kit: Path, site: str) -> list[str]:
    """The command line of NVFlare's process at a site."""
    return _command("client", kit, (f"uid={site}", f"heart_beat_interval={_PULSE}"))


def _command(kind: str, kit: Path, more: Sequence[str]) -> list[str]:
    module = f"nvflare.private.fed.app.{kind}.{kind}_train"
    start = [
        sys.executable,
        "-u",
        "-m",
        module,
        "-m",
        str(kit.absolute()),
        "-s",
        f"fed_{kind}.json",
    ]
    return [*start, "--set", "secure_train=true", "org=fedit", *more, "config_folder="]


class Control:
    """A login at NVFlare's server, made anew whenever it is lost."""

    def __init__(self, kit: Path, role: str = "driver"):
        self._kit, self._role = kit, role
        self._session: Any = None

    def connected(self) -> dict[str, float]:
        """The sites that are there, each with the time since when."""
        info = self._ask("get_system_info")
        return {one.name: float(one.last_connect_time) for one in info.client_info}

    def working(self, job: str) -> set[str]:
        """The sites that carry the job, as they say themselves; also who is too busy to say anything."""
        told = self._ask("get_client_job_status") or []  # None where no site has answered
        silent = MetaStatusValue.NO_REPLY
        return {
            one["client_name"]
            for one in told
            if one.get("job_id") == job or one.get("status") == silent
        }

    def submit(self, job: Path) -> str:
        """Hand in the job; its id."""
        found: str = self._ask("submit_job", str(job.absolute()))
        return found

    def ended(self, job: str) -> bool:
        """Whether the job is no more."""
        status: str = self._ask("get_job_meta", job)["status"]
        return status.startswith(("FINISHED", "FAILED", "ABANDONED"))

    def abort(self, job: str) -> None:
        """End the job."""
        self._ask("abort_job", job)

    def close(self) -> None:
        """Log out."""
        if self._session is not None:
            with contextlib.suppress(Exception), _silence():
                self._session.close()
        self._session = None

    def _ask(self, what: str, *given: Any) -> Any:
        """Raises FeditError where NVFlare's server does not answer."""
        try:
            with _silence():
                if self._session is None:
                    self._session = new_secure_session(
                        account(self._role), str(self._kit), timeout=5.0, auto_login_max_tries=1
                    )
                return getattr(self._session, what)(*given)
        except Exception as error:  # NVFlare has many kinds, and not all of them one root
            self.close()
            raise FeditError(
                f"network: the server's carrier does not answer ({brief(error)})"
            ) from None


def _silence() -> Any:
    return contextlib.redirect_stdout(io.StringIO())
