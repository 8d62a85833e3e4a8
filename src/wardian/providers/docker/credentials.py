"""What Docker's own configuration says to a registry: passwords written there, or kept by a helper program."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HUB = "https://index.docker.io/v1/"
_PATIENCE = 20
_NOTHING = "credentials not found"
"""What helpers say of a registry that they have nothing for."""


def registry_of(image: str) -> str:
    """The registry that an image's name leads to, as Docker's configuration calls it."""
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else HUB


@dataclass(frozen=True)
class Credentials:
    """What is known for a registry: what it is told, if anything, where that is from, and why there is nothing where it should be."""

    registry: str
    told: dict[str, str] | None = field(default=None, repr=False)
    source: str = ""
    failure: str = ""

    @property
    def header(self) -> dict[str, str]:
        """The header of a request that pulls an image of the registry; empty where nothing is known."""
        return {"X-Registry-Auth": _encoded(self.told)} if self.told else {}

    @property
    def login(self) -> str:
        """The command that makes something known."""
        return "`docker login`" if self.registry == HUB else f"`docker login {self.registry}`"


def for_image(image: str) -> Credentials:
    """What Docker's configuration knows for the registry of an image. Blocking where a helper is asked."""
    registry = registry_of(image)
    try:
        config = _config()
    except (OSError, ValueError) as error:
        return Credentials(registry, failure=f"{_path()} cannot be read: {error}")
    return _for_registry(registry, config)


def for_builds() -> dict[str, str]:
    """The header of a request that builds an image, which may be made from others of any registry that we are logged in to."""
    try:
        config = _config()
    except (OSError, ValueError):
        return {}
    registries = sorted({*config.get("auths", {}), *config.get("credHelpers", {})})
    known = {registry: told for registry in registries if (told := _for_registry(registry, config).told)}
    return {"X-Registry-Config": _encoded(known)} if known else {}


def _path() -> Path:
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"


def _config() -> dict[str, Any]:
    """Docker's configuration. Raises OSError or ValueError for one that cannot be read."""
    try:
        value = json.loads(_path().read_bytes())
    except FileNotFoundError:
        return {}
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    return value


def _for_registry(registry: str, config: dict[str, Any]) -> Credentials:
    helper = config.get("credHelpers", {}).get(registry) or config.get("credsStore")
    failure = ""
    if helper:
        told, failure = _ask(helper, registry)
        if told:
            return Credentials(registry, told, f"docker-credential-{helper}")
    entries = {host(written): entry for written, entry in config.get("auths", {}).items()}
    return Credentials(registry, _written(entries.get(host(registry), {}), registry), str(_path()), failure)


def _encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


def host(registry: str) -> str:
    """A registry's name without what older versions of Docker wrote around it."""
    return registry.partition("://")[2].partition("/")[0] if "://" in registry else registry.partition("/")[0]


def _written(entry: dict[str, Any], registry: str) -> dict[str, str] | None:
    if entry.get("identitytoken"):
        return {"identitytoken": entry["identitytoken"], "serveraddress": registry}
    user, colon, password = base64.b64decode(entry.get("auth", "")).decode(errors="replace").partition(":")
    return {"username": user, "password": password, "serveraddress": registry} if colon else None


def _ask(helper: str, registry: str) -> tuple[dict[str, str] | None, str]:
    """What a helper tells, or why it does not; neither where it has nothing."""
    name = f"docker-credential-{helper}"
    program = shutil.which(name)
    if program is None:
        return None, f"{name}, which is to keep passwords, is not installed"
    try:
        done = subprocess.run([program, "get"], input=registry, capture_output=True, timeout=_PATIENCE, check=False, text=True)
        if done.returncode:
            said = done.stdout.strip() or done.stderr.strip()
            return None, "" if _NOTHING in said else f"{name} failed: {said or f'exit code {done.returncode}'}"
        answer = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return None, f"{name} failed: {error}"
    user, secret = answer.get("Username", ""), answer.get("Secret", "")
    if user == "<token>":
        return {"identitytoken": secret, "serveraddress": registry}, ""
    return ({"username": user, "password": secret, "serveraddress": registry} if secret else None), ""
