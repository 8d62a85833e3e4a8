"""What nodes are: asked with a shell alone, and read from what it prints."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from wardian.environment import facts

from .. import images

OF_RPM = """\x1ekernel
Linux 6.6.1
\x1esystem
NAME="Fedora Linux"
PRETTY_NAME='Fedora Linux 40'
\x1erpm
installed bash.x86_64 5.2.26-3.fc40
installed kernel-core.x86_64 6.8.5-301.fc40
"""

OF_APK = """\x1eprocessors
4
\x1ememory
MemTotal:        2048 kB
\x1eapk
installed musl
 1.2.5-r0
installed busybox
 1.36.1-r29
\x1econda
history
numpy-1.26.4-py311h64a7726_0.json
python-dateutil-2.9.0-pyhd8ed1ab_0.json
"""


def ask(python: str = "", known: str = "", **options) -> dict:
    """The facts of this host, as a node with this environment would tell them."""
    command = ["/bin/sh", "-c", facts._SCRIPT, "sh", python, facts._PROGRAM, known]
    return facts.read(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, **options).stdout)


def test_this_host() -> None:
    """Kernel, processors, memory and Python are those that Python itself sees, and the packages those that the managers list."""
    found = ask(sys.executable)
    machine = found[facts.MACHINE]
    assert machine["kernel"] == f"Linux {platform.release()}"
    assert machine["architecture"] == platform.machine()
    assert machine["processors"] == os.cpu_count()
    assert machine["memory"] == pytest.approx(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), rel=0.01)
    assert found[facts.PYTHON] == {"version": platform.python_version(), "executable": sys.executable}
    python = {item.name.lower().replace("_", "-").replace(".", "-"): item.version for item in metadata.distributions()}
    assert found["packages.pip"] == python
    listed = subprocess.run(
        ["dpkg-query", "-W", "-f", "${binary:Package}=${Version}\n", "dpkg"], capture_output=True, text=True, check=True
    )
    name, _, version = listed.stdout.strip().partition("=")
    assert found["packages.dpkg"][name] == version


@pytest.mark.root
def test_nothing_but_a_shell() -> None:
    """A file system with busybox alone tells what the kernel knows, and no packages."""
    root = images.without_python(bash=False)
    command = ["chroot", str(root), "/bin/sh", "-c", facts._SCRIPT, "sh", "", facts._PROGRAM]
    (Path(root) / "proc").mkdir(exist_ok=True)
    mounted = ["unshare", "--mount", "sh", "-c", 'mount -t proc proc "$0/proc" && exec "$@"', str(root), *command]
    done = subprocess.run(mounted, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = facts.read(done.stdout)
    assert set(found) - {facts.MARK} == {facts.MACHINE}
    assert found[facts.MACHINE]["kernel"] == f"Linux {platform.release()}"
    assert found[facts.MACHINE]["processors"] == os.cpu_count()
    assert found[facts.MACHINE]["memory"] > 0


def test_packages_that_are_known_are_not_listed_again(tmp_path: Path) -> None:
    """A node whose mark is known tells no packages; installing one gives it another mark, so that it tells them."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=60)
    python = str(venv / "bin" / "python")
    first = ask(python)
    assert first["packages.pip"] == {}
    again = ask(python, f"[other][{first[facts.MARK]}]")
    assert set(again) == {facts.MACHINE, facts.MARK}
    assert again[facts.MARK] == first[facts.MARK]
    (place,) = (venv / "lib").glob("python3*/site-packages")
    (place / "added_one-1.5.dist-info").mkdir()
    changed = ask(python, f"[{first[facts.MARK]}]")
    assert changed["packages.pip"] == {"added-one": "1.5"}


def test_other_package_managers() -> None:
    """Lists of rpm, apk and conda are read; names with dashes stay whole."""
    rpm = facts.read(OF_RPM)
    assert rpm[facts.MACHINE] == {"kernel": "Linux 6.6.1", "system": "Fedora Linux 40"}
    assert rpm["packages.rpm"] == {"bash.x86_64": "5.2.26-3.fc40", "kernel-core.x86_64": "6.8.5-301.fc40"}
    apk = facts.read(OF_APK)
    assert apk[facts.MACHINE] == {"processors": 4, "memory": 2 * 2**20}
    assert apk["packages.apk"] == {"musl": "1.2.5-r0", "busybox": "1.36.1-r29"}
    assert apk["packages.conda"] == {"numpy": "1.26.4-py311h64a7726_0", "python-dateutil": "2.9.0-pyhd8ed1ab_0"}
    assert facts.read("") == {facts.MACHINE: {}}


async def test_nodes_that_cannot_be_asked(environment, cloud) -> None:
    """All nodes and home are recorded; of one that is down it is recorded why."""
    await environment.up()
    live = await environment.live()
    cloud.stop(live.record.id, "client[0]")
    found: dict = {}
    await facts.gather(live, lambda node, name, value: found.__setitem__((node, name), value))
    assert {node for node, name in found if name == facts.MACHINE} == {None, "server", "client[0]", "client[1]"}
    assert list(found["client[0]", facts.MACHINE]) == ["error"]
    assert found["server", "packages.dpkg"] == found[None, "packages.dpkg"]
