"""What Docker's own configuration says to a registry: passwords written there, or kept by a helper program."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

HUB = "https://index.docker.io/v1/"
_PATIENCE = 20


def registry_of(image: str) -> str:
    """The registry that an image's name leads to, as Docker's configuration calls it."""
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else HUB


def header(image: str) -> dict[str, str]:
    """The header of a request that pulls this image; empty where nothing is known. Blocking where a helper is asked."""
    known = _credentials(registry_of(image))
    if not known:
        return {}
    return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(known).encode()).decode()}


def _credentials(registry: str) -> dict[str, str] | None:
    path = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    helper = config.get("credHelpers", {}).get(registry) or config.get("credsStore")
    if helper and (found := _ask(helper, registry)):
        return found
    entry = config.get("auths", {}).get(registry) or config.get("auths", {}).get(f"https://{registry}") or {}
    return _written(entry, registry)


def _written(entry: dict[str, Any], registry: str) -> dict[str, str] | None:
    if entry.get("identitytoken"):
        return {"identitytoken": entry["identitytoken"], "serveraddress": registry}
    user, colon, password = base64.b64decode(entry.get("auth", "")).decode(errors="replace").partition(":")
    return {"username": user, "password": password, "serveraddress": registry} if colon else None


def _ask(helper: str, registry: str) -> dict[str, str] | None:
    program = shutil.which(f"docker-credential-{helper}")
    if program is None:
        return None
    try:
        done = subprocess.run([program, "get"], input=registry.encode(), capture_output=True, timeout=_PATIENCE, check=False)
        answer = json.loads(done.stdout) if done.returncode == 0 else {}
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    user, secret = answer.get("Username", ""), answer.get("Secret", "")
    if user == "<token>":
        return {"identitytoken": secret, "serveraddress": registry}
    return {"username": user, "password": secret, "serveraddress": registry} if secret else None
