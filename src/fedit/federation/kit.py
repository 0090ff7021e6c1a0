"""A member's kit: who it is, its keys, the carrier's files, and for a site what it allows."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedit.config import Network, Policy
from fedit.core.errors import InputError
from fedit.engines.keys import load_key, load_public_key, new_key, save_key, save_public_key
from fedit.recipe import dump_plan, load_section

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

CARD, POLICY, TAKEN = "fedit.json", "policy.yaml", "taken"
"""A kit's own files: who it belongs to, what a site allows, and the marks of messages it has taken."""

DOOR, WORKER = "relay", "worker"
"""Local sockets: where a carrier's job calls at the server, and where a site's worker listens."""


def need_federation() -> None:
    """Raises InputError naming the extra to install where it is missing."""
    if any(find_spec(name) is None for name in ("nvflare", "cryptography", "psutil")):
        raise InputError("a federation needs its extra; pip install 'fedit[federation]'")


@dataclass(frozen=True)
class Kit:
    """A kit on disk. `role` is server, site or operator; the server knows all sites, also those revoked."""

    folder: Path
    role: str
    name: str
    federation: str
    address: str
    expires: str
    sites: Sequence[str] = ()
    revoked: Sequence[str] = ()

    @property
    def carrier(self) -> Path:
        """The folder in which the carrier runs."""
        return self.folder / "carrier"

    def key(self) -> "Ed25519PrivateKey":
        """The member's own key."""
        return load_key(self.folder / "keys" / "own.pem")

    def key_of(self, name: str) -> "Ed25519PublicKey":
        """Another member's public key."""
        return load_public_key(self.folder / "keys" / f"{name}.pub")

    def policy(self) -> Policy:
        """What this site allows. Raises InputError."""
        found: Policy = load_section(Policy, self.folder / POLICY)
        return found


def open_kit(folder: Path, role: str) -> Kit:
    """The kit in a folder. Raises InputError for another role's, a damaged or an expired one."""
    need_federation()
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text())
        lists = {key: tuple(card.get(key, ())) for key in ("sites", "revoked")}
        kit = Kit(folder, **{**card, **lists})
        ends = datetime.fromisoformat(kit.expires)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"kit {folder}: has no usable {CARD} ({type(error).__name__}); give the folder that fedit "
            "provision made, whole"
        ) from None
    if kit.role != role:
        raise InputError(f"kit {folder}: is that of the {kit.role} {kit.name}, not of a {role}")
    if ends < datetime.now(UTC):
        raise InputError(
            f"kit {folder}: its certificate has expired on {kit.expires}; ask the operator for a new kit"
        )
    return kit


def make_kits(network: Network, folder: Path) -> dict[str, Path]:
    """Make the kits that are not there yet in `folder`; those made, by name. Raises InputError.

    The authority's key stays in `folder`/authority, which belongs to nobody but the operator.
    """
    need_federation()
    from fedit.engines.nvflare.kits import Members, provision

    _check_same(folder, network)
    authority = folder / "authority"
    authority.mkdir(parents=True, exist_ok=True, mode=0o700)
    members = Members(network.name, network.host, network.port, network.sites, network.days)
    carriers = provision(members, authority)
    made: dict[str, Path] = {}
    expires = _expiry(carriers["server"] / "startup" / "server.crt")
    common = {
        "federation": network.name,
        "address": f"{network.host}:{network.port}",
        "expires": expires,
    }
    for name in ("server", *network.sites, "operator"):
        kit = folder / name
        if not kit.exists():
            _fill(kit, name, common, carriers)
            made[name] = kit
    _introduce(folder, network, common)
    return made


def _check_same(folder: Path, network: Network) -> None:
    """Refuse to add to kits of another federation, or of another address, which old kits would keep."""
    card = folder / "server" / CARD
    if not card.exists():
        return
    known: dict[str, Any] = json.loads(card.read_text())
    address = f"{network.host}:{network.port}"
    for key, then, now in (
        ("name", known["federation"], network.name),
        ("host and port", known["address"], address),
    ):
        if then != now:
            raise InputError(
                f"{key}: the kits in {folder} are of {then}, not of {now}; put it back, or give everybody "
                "a new kit with another --output"
            )


def _fill(kit: Path, name: str, common: Mapping[str, str], carriers: Mapping[str, Path]) -> None:
    kit.mkdir(mode=0o700)
    role = name if name in ("server", "operator") else "site"
    shutil.copytree(carriers[name], kit / "carrier")
    if role == "server":
        shutil.copytree(carriers["driver"], kit / "driver")
    _card(kit, {"role": role, "name": name, **common})
    if role != "operator":
        (kit / "keys").mkdir(mode=0o700)
        save_key(key := new_key(), kit / "keys" / "own.pem")
        save_public_key(key.public_key(), kit / "keys" / f"{name}.pub")
    if role == "site":
        (kit / POLICY).write_text(
            "# What this site lets a recipe ask of it; a key that is left out sets no limit. See the guide.\n"
            + dump_plan(Policy())
        )
    for path in kit.rglob("*.key"):
        os.chmod(path, 0o600)


def _introduce(folder: Path, network: Network, common: Mapping[str, str]) -> None:
    """Give the server every site's public key, and each site the server's."""
    server = folder / "server"
    known = {json.loads(card.read_text())["name"] for card in folder.glob(f"*/{CARD}")}
    revoked = sorted(known - {"server", "operator", *network.sites})
    lists = {"sites": list(network.sites), "revoked": revoked}
    _card(server, {"role": "server", "name": "server", **common, **lists})
    for site in network.sites:
        for one, other in ((server, site), (folder / site, "server")):
            target = one / "keys" / f"{other}.pub"
            if not target.exists():
                shutil.copyfile(folder / other / "keys" / f"{other}.pub", target)


def _card(kit: Path, values: Mapping[str, Any]) -> None:
    (kit / CARD).write_text(json.dumps(values, indent=1) + "\n")


def _expiry(certificate: Path) -> str:
    """When a certificate ends."""
    from cryptography.x509 import load_pem_x509_certificate

    found = load_pem_x509_certificate(certificate.read_bytes())
    return found.not_valid_after_utc.isoformat(timespec="seconds")
