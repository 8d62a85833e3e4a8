"""Where the form with virtual machines is: namespaces of its own, in which interfaces, bridges, routes, rules, mounts and processes are
made as on a host that is for nothing else. They end with their first process, and all that is in them with it."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from . import SetupError, processes
from .layout import Layout
from .packages import program

NAME = "machine"
OUTSIDE = "203.0.113.1"
"""This side's address on the network of floating IPs."""

READY = "/run/wardian-testbed"
"""A file that is in no other place than in there."""

_FIRST = f"""
set -e
ip link set lo up
ip link add public type bridge
ip address add {OUTSIDE}/24 dev public
ip link set public up
# with what is below it: libvirt would use the control groups of the host
umount --recursive --lazy /sys
mount -t sysfs sys /sys
mount -t tmpfs -o mode=755 run /run
mkdir /run/netns /run/lock
mount --bind "$1/libvirt/etc" /etc/libvirt
mount --bind "$1/libvirt/passwd" /etc/passwd
mount --bind "$1/libvirt/group" /etc/group
mount --bind "$1/libvirt/lib" /var/lib/libvirt
mount --bind "$1/libvirt/log" /var/log/libvirt
echo 1 >/proc/sys/net/ipv4/ip_forward
touch {READY}
# whoever loses its parent becomes a child of this one, which waits for all of its children
while :; do sleep 86400 & wait $!; done
"""

_QEMU = """\
user = "root"
group = "root"
security_driver = "none"
stdio_handler = "file"
namespaces = []
remember_owner = 0
"""
_ACCOUNT = {"passwd": "libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin\n", "group": "libvirt-qemu:x:64055:\n"}
"""libvirt does not start without this account, though it is told to use another; the host has no need of it."""


def there(layout: Layout) -> int | None:
    """Its first process, as it is numbered outside."""
    for pid in processes.running(layout).get(NAME, ()):
        with suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_text()
            if status.partition("NSpid:")[2].splitlines()[0].split()[-1:] == ["1"] and Path(f"/proc/{pid}/root{READY}").exists():
                return pid
    return None


def start(layout: Layout) -> None:
    """Have it run."""
    if there(layout) is not None:
        return
    stop(layout)
    own = [layout.state / "libvirt" / name for name in ("etc", "lib", "log")]
    for path in (*own, *map(Path, ("/etc/libvirt", "/var/lib/libvirt", "/var/log/libvirt")), layout.machines):
        path.mkdir(parents=True, exist_ok=True)
    (layout.state / "libvirt" / "etc" / "qemu.conf").write_text(_QEMU)
    for name, account in _ACCOUNT.items():
        (layout.state / "libvirt" / name).write_text(Path("/etc", name).read_text() + account)
    apart = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    process = processes.start(layout, NAME, [*apart, "sh", "-c", _FIRST, "sh", str(layout.state)], {})
    processes.wait(layout, NAME, process, lambda: there(layout) is not None, 30)


def stop(layout: Layout) -> None:
    """End it, and all that is in it."""
    if (pid := there(layout)) is not None:
        processes.send(layout, [pid], signal.SIGKILL, processes.GRACE)
    processes.stop(layout, [NAME])


def inside() -> bool:
    """Whether this process is in one."""
    return Path(READY).exists()


def command(layout: Layout, *how: str) -> list[str]:
    """What runs something in it, to be followed by that; how: in which of its namespaces, as `nsenter` takes it."""
    if (pid := there(layout)) is None:
        raise SetupError(f"the testbed in {layout.folder} does not run; run `openstack-testbed --full start` first")
    return [program("nsenter") or "nsenter", f"--target={pid}", *how, "--"]


def again(layout: Layout) -> None:
    """Run this very command in it, in place of this process."""
    argv = [*command(layout, "--net", "--mount", "--pid", f"--wdns={os.getcwd()}"), sys.executable, *sys.argv]
    os.execvp(argv[0], argv)  # noqa: S606
