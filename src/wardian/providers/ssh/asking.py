"""What `ssh` asks while it connects (is this the right host key? what is the password?), and who answers.

`ssh` starts `askpass.py`, which brings the question here over a Unix socket that only this user can reach. A password is had from the
variable that the host names, or typed on a terminal; it is passed on and forgotten.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import shlex
import sys
import threading
from contextlib import suppress
from pathlib import Path

from .. import looking
from .inventory import Host

_FINGERPRINT = re.compile(r"fingerprint is (SHA256:[A-Za-z0-9+/]+)")
_terminal = threading.Lock()
"""One question at a time, however many hosts are being connected to."""


class Questions:
    """Answers the questions of one `ssh` while it is open.

    shown: fingerprint of a host key that nobody vouched for, if there was one.
    unanswered: whether a password was asked for that is not to be had. given: whether the one of the host's variable was given.
    """

    def __init__(self, host: Host, folder: Path) -> None:
        self.shown: str | None = None
        self.unanswered = False
        self.given = False
        self._host = host
        self._folder = folder
        self._socket = folder / f"ask-{os.getpid()}-{secrets.token_hex(4)}"
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Questions:
        self._server = await asyncio.start_unix_server(self._serve, str(self._socket))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        self._socket.unlink(missing_ok=True)

    def variables(self) -> dict[str, str]:
        """The environment of the `ssh` that asks: the user's, without the password."""
        env = {name: value for name, value in os.environ.items() if name != self._host.password_env and not name.startswith("WARDIAN_")}
        env |= {"SSH_ASKPASS": str(_program(self._folder)), "SSH_ASKPASS_REQUIRE": "force", "WARDIAN_ASKPASS": str(self._socket)}
        # before OpenSSH 8.4 it asks that way only where there seems to be a display
        env.setdefault("DISPLAY", ":0")
        return env

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ValueError):
            question = json.loads(await reader.readline())
            if look := looking.current():
                look.hush()
            if question["kind"] == "none":
                # no question but a notice, such as to touch a key, that stands until `ssh` ends who shows it
                await asyncio.to_thread(_tell, question["text"])
                await reader.read()
            else:
                answer = await self._answer(question["text"])
                writer.write(json.dumps({"answer": answer}).encode() + b"\n")
                await writer.drain()
        writer.close()

    async def _answer(self, text: str) -> str | None:
        if found := _FINGERPRINT.search(text):
            return await self._vouch(text, found[1])
        if "type 'yes'" in text:
            # what was said of the key was not what it is
            return "no"
        if self._host.password_env and "passphrase" not in text:
            password = os.environ.get(self._host.password_env)
            self.unanswered = not password
            if password and not self.given:
                self.given = True
                return password
            return None
        if not interactive():
            self.unanswered = True
            return None
        return await asyncio.to_thread(_read_secret, text)

    async def _vouch(self, text: str, fingerprint: str) -> str:
        if self._host.fingerprint:
            if fingerprint != self._host.fingerprint:
                self.shown = fingerprint
            return self._host.fingerprint if fingerprint == self._host.fingerprint else "no"
        if self._host.host_keys == "ask" and interactive():
            answer = (await asyncio.to_thread(_read_line, text)).strip()
            if answer in ("y", "yes", fingerprint):
                return "yes"
        self.shown = fingerprint
        return "no"


def interactive() -> bool:
    """Whether somebody is there to ask."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def _program(folder: Path) -> Path:
    """The program that SSH_ASKPASS names; it takes no arguments of ours, and so is written."""
    path = folder / "askpass"
    text = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -S {shlex.quote(str(Path(__file__).with_name("askpass.py")))} "$@"\n'
    if not path.exists() or path.read_text() != text:
        new = path.with_name(f"askpass-{os.getpid()}-{secrets.token_hex(4)}")
        new.write_text(text)
        new.chmod(0o700)
        new.rename(path)
    return path


def _tell(text: str) -> None:
    if interactive():
        with _terminal:
            print(text, file=sys.stderr, flush=True)


def _read_line(text: str) -> str:
    with _terminal:
        sys.stderr.write(text if text.endswith(" ") else f"{text} ")
        sys.stderr.flush()
        return sys.stdin.readline()


def _read_secret(text: str) -> str | None:
    import getpass

    with _terminal:
        try:
            return getpass.getpass(text if text.endswith(" ") else f"{text} ")
        except (EOFError, OSError):
            return None
