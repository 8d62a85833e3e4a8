"""`wardian doctor` for this provider."""

from __future__ import annotations

import asyncio
import re
import subprocess

from ...errors import ProviderError
from ..base import Finding
from . import masters

OLDEST = (6, 7)
"""The first OpenSSH that speaks this version of the multiplexing protocol as we need it."""


async def diagnose() -> list[Finding]:
    """What works here."""
    install = "Install OpenSSH's client (Debian: apt-get install openssh-client)."
    try:
        process = await asyncio.create_subprocess_exec("ssh", "-V", stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    except OSError as error:
        return [Finding("OpenSSH client", "limited", f"no host can be reached: ssh cannot be run: {error.strerror}", install)]
    _, said = await process.communicate()
    text = said.decode(errors="replace").strip()
    version = re.search(r"OpenSSH_(\d+)\.(\d+)", text)
    if version is None or (int(version[1]), int(version[2])) < OLDEST:
        return [Finding("OpenSSH client", "limited", f"{text or 'ssh'} is not OpenSSH 6.7 or newer", install)]
    try:
        folder = masters.runtime_folder()
    except (ProviderError, OSError) as error:
        return [Finding("OpenSSH client", "ok", text), Finding("control sockets", "missing", str(error))]
    return [Finding("OpenSSH client", "ok", text), Finding("control sockets", "ok", f"in {folder}")]
