"""What no cloud has a place for: where environments are, as `ssh` keeps it of its hosts, what is secret, and notes where nobody logs in.

openstack/environments/ID.json     see `ssh.index`; nodes are there once their servers were logged in to
openstack/keys/ID                  the private key that logs in to its servers
openstack/known/ID                 the keys that its servers show
openstack/notes/ID/NODE/NAME       {"server", "value"} of nodes that count as ready without being logged in to
openstack/owner                    a word drawn at random, by which the cloud knows what was made from this folder
openstack/locks/HASH.lock
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from ..local.state import read_json, write_json
from ..ssh.index import Index as Hosts


class Index(Hosts):
    """The folder of all entries. Changes are made by who holds the environment's lock."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._folder = root

    @property
    def used(self) -> bool:
        """Whether anything was ever made from here."""
        return (self._folder / "owner").exists()

    @property
    def owner(self) -> str:
        """The word that is this folder's own."""
        path = self._folder / "owner"
        try:
            return path.read_text()
        except FileNotFoundError:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            fresh = self._folder / f".owner-{os.getpid()}-{secrets.token_hex(4)}"
            fresh.write_text(secrets.token_hex(8))
            # of two at once, the first one's
            with suppress(FileExistsError):
                os.link(fresh, path)
            fresh.unlink()
            return path.read_text()

    def key(self, environment: str) -> Path:
        """Where an environment's private key is."""
        return self._folder / "keys" / environment

    def known_hosts(self, environment: str) -> Path:
        """Where the keys of its servers are."""
        return self._folder / "known" / environment

    def write_private(self, path: Path, text: str) -> None:
        """Replace a file that nobody else may read."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = path.with_name(f".{path.name}-{os.getpid()}")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        fresh.replace(path)

    def note(self, environment: str, node: str, name: str, value: Mapping[str, Any] | None, server: str) -> None:
        """Keep a note with a server's node, or remove it."""
        path = self._notes(environment) / quote(node, safe="") / f"{quote(name, safe='')}.json"
        if value is None:
            path.unlink(missing_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_json(path, {"server": server, "value": dict(value)})

    def notes(self, environment: str) -> dict[str, dict[str, tuple[str, dict[str, Any]]]]:
        """{node: {name: (server, value)}}."""
        found: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {}
        for path in sorted(self._notes(environment).glob("*/*.json")):
            if kept := read_json(path):
                found.setdefault(unquote(path.parent.name), {})[unquote(path.stem)] = (kept["server"], kept["value"])
        return found

    def remove(self, environment: str) -> None:
        self.key(environment).unlink(missing_ok=True)
        self.known_hosts(environment).unlink(missing_ok=True)
        shutil.rmtree(self._notes(environment), ignore_errors=True)
        super().remove(environment)

    def _notes(self, environment: str) -> Path:
        return self._folder / "notes" / environment
