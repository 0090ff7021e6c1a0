"""What NVFlare needs at the server, at each site and at the operator's: certificates and settings."""

import contextlib
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvflare.lighter.entity import Project
from nvflare.lighter.impl.cert import CertBuilder
from nvflare.lighter.impl.signature import SignatureBuilder
from nvflare.lighter.impl.static_file import StaticFileBuilder
from nvflare.lighter.impl.workspace import WorkspaceBuilder
from nvflare.lighter.provisioner import Provisioner

SERVER = "server"
"""The server's name in its certificate, whatever its host is called."""

CLASSES = (
    "fedit.engines.nvflare.job.Relay",
    "fedit.engines.nvflare.job.Post",
    "fedit.engines.nvflare.job.Conductor",
    "nvflare.collab.runtime.executor.CollabExecutor",
)
"""All that a job may consist of: no site takes other code."""

_BEGIN = 30  # seconds in which a site's part of a job must have begun
_LOST = 25  # seconds of silence after which a site counts as gone


@dataclass(frozen=True)
class Members:
    """Who takes part: the server's host and port, the sites' names, the certificates' days."""

    name: str
    host: str
    port: int
    sites: Sequence[str]
    days: int


def account(role: str) -> str:
    """The name under which one of our two administrators logs in: "driver" or "operator"."""
    return f"{role}@fedit.org"


def provision(members: Members, folder: Path) -> dict[str, Path]:
    """Make a kit for each member in `folder`, whose `state` keeps the authority's key; kits by name.

    What was made before stays: certificates of members known already are the same.
    """
    project = Project(members.name, "fedit", props={"api_version": 4})
    place = {"fed_learn_port": members.port, "admin_port": members.port}
    project.set_server(SERVER, "fedit", {**place, "default_host": members.host})
    for site in members.sites:
        project.add_client(site, "fedit", {})
    for role in ("driver", "operator"):
        project.add_admin(account(role), "fedit", {"role": "lead"})
    builders = [
        WorkspaceBuilder(),
        StaticFileBuilder(),
        CertBuilder(root_valid_days=members.days),
        SignatureBuilder(),
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        Provisioner(str(folder), builders).provision(project)
    made = max((folder / members.name).glob("prod_*"), key=lambda path: path.name)
    kits = {site: made / site for site in members.sites}
    kits |= {SERVER: made / SERVER, **{r: made / account(r) for r in ("driver", "operator")}}
    for name, kit in kits.items():
        if name not in ("driver", "operator"):
            _settle(kit, server=name == SERVER)
    return kits


def _settle(kit: Path, *, server: bool) -> None:
    """Put our settings over NVFlare's defaults: our classes only, no code in jobs."""
    local = kit / "local"
    settings = _read(local / "resources.json.default")
    settings |= {"class_allow_list": list(CLASSES), "allow_log_streaming": False}
    if not server:
        settings["client"] |= {"maint_msg_timeout": 5.0, "client_register_interval": 1.0}
    else:
        settings["servers"][0]["heart_beat_timeout"] = _LOST
        for part in settings["components"]:
            if part["id"] == "job_scheduler":
                part["args"] |= {"min_schedule_interval": 1, "max_jobs": 2}
    _write(local / "resources.json", settings)
    rights = _read(local / "authorization.json.default")
    for role in rights["permissions"].values():
        if isinstance(role, dict) and "byoc" in role:
            role["byoc"] = "none"
    rights["permissions"].pop("project_admin", None)
    _write(local / "authorization.json", rights)


def settle_server(kit: Path, revoked: Sequence[str]) -> None:
    """Have a server's kit, wherever it lies, keep its jobs in itself and turn away who is revoked."""
    _write(kit / "disabled_clients.json", {"disabled_clients": sorted(revoked)})
    path = kit / "local" / "resources.json"
    settings = _read(path)
    storage = kit.absolute() / "storage"
    settings["snapshot_persistor"]["args"]["storage"]["args"]["root_dir"] = str(
        storage / "snapshots"
    )
    for part in settings["components"]:
        if part["id"] == "job_manager":
            part["args"]["uri_root"] = str(storage / "jobs")
    _write(path, settings)


def write_job(folder: Path, sites: Sequence[str] = ("@ALL",)) -> Path:
    """The job that carries a session's messages, as NVFlare takes it: settings, no code."""
    members = ["@ALL"] if "@ALL" in sites else [SERVER, *sites]
    shutil.rmtree(folder, ignore_errors=True)
    config = folder / "app" / "config"
    config.mkdir(parents=True)
    conducted = {"server_obj_id": "_server", "sync_task_timeout": _BEGIN}
    relay, post, controller, executor = CLASSES
    _write(
        folder / "meta.json",
        {"name": "fedit", "min_clients": 1, "resource_spec": {}, "deploy_map": {"app": members}},
    )
    none: dict[str, Any] = {"format_version": 2, "task_data_filters": [], "task_result_filters": []}
    _write(
        config / "config_fed_server.json",
        none
        | {
            "workflows": [{"id": "controller", "path": controller, "args": conducted}],
            "components": [{"id": "_server", "path": relay, "args": {}}],
        },
    )
    _write(
        config / "config_fed_client.json",
        none
        | {
            "executors": [
                {
                    "tasks": ["*"],
                    "executor": {
                        "id": "executor",
                        "path": executor,
                        "args": {"client_obj_id": "_client"},
                    },
                }
            ],
            "components": [{"id": "_client", "path": post, "args": {}}],
        },
    )
    return folder


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _write(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n")
