"""What virtual machines boot: a Debian with cloud-init, an SSH server and what experiments use, made by debootstrap."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from . import SetupError
from .packages import NO_SERVICES

RELEASE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
SYSTEM = ("systemd-sysv", "dbus", "udev", "linux-image-cloud-amd64", "initramfs-tools", "cloud-init", "openssh-server", "sudo")
TOOLS = ("iproute2", "iputils-ping", "iperf3", "nftables", "procps", "python3")
PYTHON = ("ipykernel", "pandas", "pyarrow")
"""What cells of the examples use, from PyPI."""

SIZE = "2500M"
"""Of its file system; what is not used takes no room."""

SETTINGS = {
    # the drive with Nova's data, which cloud-init looks for before everything else
    "usr/share/initramfs-tools/modules.d/testbed": "ata_piix\nsr_mod\nisofs\n",
    # where Nova gives a machine its data; looking anywhere else takes long
    "etc/cloud/cloud.cfg.d/90-testbed.cfg": "datasource_list: [ConfigDrive]\nlocale: false\n",
    "etc/fstab": "/dev/vda / ext4 noatime 0 1\n",
    "etc/hostname": "debian\n",
}
TIMERS = ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer")
"""Those that would work while an experiment runs: a machine that is emulated has no processor to spare."""


class Debian:
    """The image, in a folder of its own: `disk`, a file system in the format qcow2; `kernel`; `initrd`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk, self.kernel, self.initrd = (folder / name for name in ("disk", "kernel", "initrd"))

    def there(self) -> bool:
        """Whether it is complete."""
        return self.folder.is_dir()

    def make(self) -> None:
        """Make it. Raises SetupError."""
        part = Debian(self.folder.with_name(f".new-{self.folder.name}"))
        tree = part.folder / "tree"
        shutil.rmtree(part.folder, ignore_errors=True)
        part.folder.mkdir(mode=0o700)
        _run(["debootstrap", "--variant=minbase", RELEASE, tree, MIRROR])
        _fill(tree)
        for name, kept in (("vmlinuz", part.kernel), ("initrd.img", part.initrd)):
            shutil.copy(next((tree / "boot").glob(f"{name}-*")), kept)
        whole = part.folder / "whole"
        _run(["mke2fs", "-q", "-t", "ext4", "-d", tree, whole, SIZE])
        _run(["qemu-img", "convert", "-O", "qcow2", whole, part.disk])
        whole.unlink()
        shutil.rmtree(tree)
        part.folder.rename(self.folder)


def _fill(tree: Path) -> None:
    """Install and set up what is to be in it."""
    policy = tree / "usr" / "sbin" / "policy-rc.d"
    policy.write_text(NO_SERVICES)
    policy.chmod(0o755)
    for name, text in SETTINGS.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    # dpkg waits for the disk after each file otherwise
    quick = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Options::=--force-unsafe-io", "--yes", "--quiet")
    inside = ("chroot", tree)
    _run([*inside, *quick, "install", "--no-install-recommends", *SYSTEM, *TOOLS])
    _run([*inside, "apt-get", "clean"])
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--python-version", "3.11", "--only-binary", ":all:"]
    _run([*pip, "--target", tree / "usr" / "lib" / "python3" / "dist-packages", *PYTHON])
    policy.unlink()
    # without these, a machine gives itself neither its addresses nor keys of its own
    _run([*inside, "systemctl", "--quiet", "enable", "systemd-networkd"])
    _run([*inside, "systemctl", "--quiet", "mask", *TIMERS])
    # what tells one machine from another, each makes for itself
    (tree / "etc" / "machine-id").write_text("")
    for path in (tree / "var" / "lib" / "dbus" / "machine-id", *(tree / "etc" / "ssh").glob("ssh_host_*")):
        path.unlink(missing_ok=True)


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise SetupError(f"{' '.join(map(str, command[:3]))} … failed:\n{done.stdout[-2000:]}")
