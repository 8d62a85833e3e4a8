"""What has to be installed: Debian's packages of the services, and Blazar from PyPI in an environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from . import SetupError

# Those with a hypervisor (nova-compute) or an init script for each service are left out: Nova's fake driver needs neither.
PACKAGES = (
    "mariadb-server",
    "rabbitmq-server",
    "keystone",
    "placement-common",
    "glance-common",
    "nova-common",
    "neutron-common",
    "uwsgi-plugin-python3",
    "python3-venv",
)
FULL = (
    "python3-libvirt",
    "libvirt-daemon",
    "libvirt-daemon-driver-qemu",
    "qemu-system-x86",
    "qemu-utils",
    "genisoimage",
    "dnsmasq-base",
    "iptables",
    "ebtables",
    "debootstrap",
)
"""What the form with virtual machines needs besides."""

UNITS = (
    "mariadb.service",
    "rabbitmq-server.service",
    "epmd.service",
    "epmd.socket",
    "keystone.service",
    "open-iscsi.service",
    "iscsid.socket",
    "libvirtd.service",
    "libvirtd.socket",
    "libvirtd-ro.socket",
    "libvirtd-admin.socket",
    "virtlogd.socket",
    "virtlockd.socket",
)
"""What these packages have started at the next boot."""

BLAZAR = ("blazar==18.0.0", "gunicorn>=23", "pymysql>=1.1")
BLAZAR_NOVA = "blazar-nova==10.0.0"
"""What Nova's scheduler needs to know of reservations; it runs in Debian's Python."""

FILTER = "nova"
"""Where that is, in Blazar's environment."""

POLICY = Path("/usr/sbin/policy-rc.d")
NO_SERVICES = """#!/bin/sh
# No service of a package that is being installed starts by itself. Temporary: removed when the installation ends.
exit 101
"""


def missing(full: bool = False) -> list[str]:
    """Packages that are not there, or whose installation was cut short."""
    if program("dpkg-query") is None:
        raise SetupError("this needs Debian 12 or newer: there is no dpkg here")
    wanted = [*PACKAGES, *(FULL if full else ())]
    asked = ["dpkg-query", "--show", "--showformat", "${Package} ${Status}\\n", *wanted]
    listed = subprocess.run(asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout
    return [name for name in wanted if f"{name} install ok installed" not in listed.splitlines()]


def program(name: str) -> str | None:
    """The path of a program, also where a user's PATH has no folders for administrators."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def install(blazar: Path, full: bool = False) -> None:
    """Install what is missing. Raises SetupError."""
    if packages := missing(full):
        _install_debian(packages)
    if not has_blazar(blazar):
        _install_blazar(blazar)


def has_blazar(folder: Path) -> bool:
    """Whether Blazar's environment is complete."""
    return (folder / "complete").exists() and (folder / FILTER / "blazarnova").exists()


def _install_debian(packages: Sequence[str]) -> None:
    if os.geteuid() != 0 or program("apt-get") is None:
        raise SetupError(f"install as root, on Debian: apt-get install --no-install-recommends {' '.join(packages)}")
    command = ["apt-get", "-o", "DPkg::Lock::Timeout=600", "install", "--yes", "--quiet", "--no-install-recommends", *packages]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    ours, others = not POLICY.exists(), _units()
    if ours:
        POLICY.write_text(NO_SERVICES)
        POLICY.chmod(0o755)
    try:
        if subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode:
            subprocess.run(["apt-get", "update", "--quiet"], stdout=subprocess.DEVNULL, check=False)
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
            if done.returncode:
                raise SetupError(f"apt-get failed:\n{done.stdout[-2000:]}")
    finally:
        if ours:
            POLICY.unlink()
        if (added := _units() - others) and program("systemctl"):
            subprocess.run(["systemctl", "--quiet", "disable", *sorted(added)], stderr=subprocess.DEVNULL, check=False)


def _units() -> set[str]:
    """Those of UNITS that are there."""
    return {name for name in UNITS if any(Path(folder, name).exists() for folder in ("/lib/systemd/system", "/etc/systemd/system"))}


def _install_blazar(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    pip = [folder / "bin" / "pip", "install", "--quiet"]
    beside = [*pip, "--no-deps", "--target", folder / FILTER, BLAZAR_NOVA]
    for command in ([sys.executable, "-m", "venv", folder], [*pip, *BLAZAR], beside):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            raise SetupError(f"{command[0]} failed:\n{done.stdout[-2000:]}")
    (folder / "complete").touch()
