"""The way to the internet out of an ordinary user's namespaces: pasta or slirp4netns, whichever is installed, run on the host's side.

Either gives the environment's outer network namespace an interface, and does there with ordinary sockets of the user what goes through it.
For everything else (`internet.py`) that namespace stands where root has the host's.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress

from ...errors import ProviderError
from .kernel import is_running, process_identity
from .state import EnvironmentFolder, read_json, write_json

FILE = "way.process.json"


def program() -> str | None:
    """Which of the two is installed, if any."""
    return next((name for name in ("slirp4netns", "pasta") if shutil.which(name)), None)


def keep(environment: EnvironmentFolder) -> list[int]:
    """Have it run for an environment that has its outer namespace. Gives its process number, or nothing where there is none."""
    outside, chosen = environment.outside_pid(), program()
    if outside is None or chosen is None:
        return []
    known = read_json(environment.outside / FILE)
    if known and is_running(known):
        return [known["pid"]]
    paths = {kind: f"/proc/{outside}/ns/{kind}" for kind in ("net", "user")}
    ready, told = os.pipe()
    commands = {
        "slirp4netns": [
            "--configure", "--mtu=1500", "--disable-host-loopback", f"--ready-fd={told}",
            f"--userns-path={paths['user']}", "--netns-type=path", paths["net"], "out0",
        ],
        "pasta": [
            "--foreground", "--quiet", "--config-net", "--ns-ifname", "out0", "--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none",
            "--udp-ns", "none", "--no-map-gw", "--userns", paths["user"], "--netns", paths["net"],
        ],
    }  # fmt: skip
    with open(environment.outside / "way.log", "ab") as log, open(ready, "rb") as begun:
        process = subprocess.Popen(
            [chosen, *commands[chosen]], pass_fds=[told], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
        os.close(told)
        write_json(environment.outside / FILE, process_identity(process.pid))
        # slirp4netns says when it is ready; of pasta the end says that it could not begin
        if not begun.read(1) and chosen == "slirp4netns":
            said = (environment.outside / "way.log").read_text(errors="replace").strip().splitlines()
            raise ProviderError(f"{chosen} could not begin: {said[-1] if said else 'it gave no reason'}", resource="internet")
    return [process.pid]


def end(environment: EnvironmentFolder) -> None:
    """End it."""
    known = read_json(environment.outside / FILE)
    if known and is_running(known):
        with suppress(ProcessLookupError):
            os.kill(known["pid"], signal.SIGKILL)
