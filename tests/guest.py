"""A machine of QEMU's own emulation with Debian's kernel, which has netem and control groups of version 2, to run tests in.

Its root is this host's, read only below an overlay in its memory, so that the checkout and its virtual environment are there. Nothing that
it does reaches the host. The kernel is Debian's cloud one, fetched once and kept in the user's cache.
"""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .images import fetched
from .stage import require

MODULES = (
    "virtio_pci", "virtiofs", "overlay", "veth", "bridge", "tun", "sch_tbf", "sch_netem", "sch_codel", "sch_pie", "nf_tables",
    "nft_masq", "nft_chain_nat", "sch_htb", "sch_fq_codel", "cls_u32",
)  # fmt: skip
MEMORY = "2G"
DAEMON = "/usr/lib/qemu/virtiofsd"

INIT = """#!/bin/sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module || echo "cannot load $module"; done
mount -t tmpfs -o size=1500m memory /memory; mkdir /memory/upper /memory/work
mount -t virtiofs -o ro host /host
mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work root /root
for folder in proc sys dev; do mount --move /$folder /root/$folder; done
for folder in tmp run var/tmp var/lib; do mount -t tmpfs memory /root/$folder; done
mkdir -p /root/dev/shm /root/dev/pts; mount -t tmpfs memory /root/dev/shm; mount -t devpts pts /root/dev/pts
mount -t cgroup2 none /root/sys/fs/cgroup
for controller in cpu memory pids; do echo +$controller >/root/sys/fs/cgroup/cgroup.subtree_control; done
ip link set lo up; hostname guest
chroot /root /bin/sh -c "$(cat /command)" </root/dev/null
echo "guest: exit code $?"
poweroff -f
"""


class Guest:
    """The machine; each `run` boots it anew, in some seconds."""

    def __init__(self, kernel: Path) -> None:
        self.kernel = kernel

    def run(self, command: str, *, timeout: float = 900, processors: int = 2) -> subprocess.CompletedProcess[str]:
        """Run a line of shell in it, and give its exit code and what the console had."""
        with tempfile.TemporaryDirectory(prefix="wardian-guest-") as place, _files(Path(place)) as socket:
            folder = Path(place)
            argv = [
                require("qemu-system-x86_64"), "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(processors), "-m", MEMORY,
                "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
                "-object", f"memory-backend-memfd,id=memory,size={MEMORY},share=on", "-numa", "node,memdev=memory",
                "-chardev", f"socket,id=files,path={socket}", "-device", "vhost-user-fs-pci,chardev=files,tag=host",
                "-kernel", str(self.kernel / "vmlinuz"), "-initrd", str(self._first(folder, command)),
                "-append", "console=ttyS0 quiet panic=-1",
            ]  # fmt: skip
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=timeout)
        found = re.search(r"guest: exit code (\d+)", done.stdout)
        assert found, f"the guest did not come to its end:\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
        return subprocess.CompletedProcess(command, int(found[1]), done.stdout.replace("\r\n", "\n"), done.stderr)

    def _first(self, folder: Path, command: str) -> Path:
        """The file system that it boots from: busybox, the modules, and what to do."""
        root = folder / "first"
        for name in ("bin", "proc", "sys", "dev", "host", "memory", "root", "modules", "etc"):
            (root / name).mkdir(parents=True)
        busybox = require("busybox")
        shutil.copy(busybox, root / "bin" / "busybox")
        for library in re.findall(r"(/\S+)", subprocess.run(["ldd", busybox], capture_output=True, text=True).stdout):
            (root / library.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, root / library.lstrip("/"))
        order = _load_order(self.kernel / "modules")
        (root / "modules" / "order").write_text("\n".join(path.name for path in order))
        for path in order:
            shutil.copy(path, root / "modules")
        (root / "init").write_text(INIT)
        (root / "init").chmod(0o755)
        (root / "command").write_text(command)
        (root / "bin" / "sh").symlink_to("busybox")
        names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
        packed = folder / "first.cpio"
        with packed.open("wb") as out:
            subprocess.run(
                [busybox, "cpio", "-o", "-H", "newc"], cwd=root, input=names.encode(), stdout=out, stderr=subprocess.DEVNULL, check=True
            )
        return packed


def guest() -> Guest:
    """The machine, its kernel fetched if need be. Skips the test, or fails it where everything is required, without QEMU or network."""
    require("qemu-system-x86_64")
    require(DAEMON)
    image = fetched("debian12-kernel", "bookworm", "linux-image-cloud-amd64")
    kernel = image.with_name("debian12-kernel-ready")
    with open(image.with_name(".debian12-kernel-ready.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kernel.is_dir():
            part = image.with_name(".new-debian12-kernel-ready")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            shutil.copy(next((image / "boot").glob("vmlinuz-*")), part / "vmlinuz")
            shutil.copytree(next((image / "lib" / "modules").iterdir()) / "kernel", part / "modules")
            part.rename(kernel)
    return Guest(kernel)


@contextmanager
def _files(folder: Path) -> Iterator[Path]:
    """Serve this host's files to one machine: the socket that it asks at."""
    socket = folder / "files.sock"
    argv = [DAEMON, f"--socket-path={socket}", "-o", "source=/", "-o", "sandbox=chroot", "-o", "cache=always", "--rlimit-nofile=0"]
    with open(folder / "files.log", "w+") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 20
            while not socket.exists():
                said = Path(log.name).read_text()
                assert process.poll() is None, f"{DAEMON} ended: {said}"
                assert time.monotonic() < deadline, f"{DAEMON} does not answer: {said}"
                time.sleep(0.01)
            yield socket
        finally:
            process.terminate()
            process.wait()


def _load_order(modules: Path) -> list[Path]:
    """The files of the modules that are wanted, each after those that it needs."""
    known = {path.stem.replace("-", "_"): path for path in modules.rglob("*.ko")}
    order: list[Path] = []

    def add(name: str) -> None:
        path = known.get(name)
        # what is missing is built in
        if path is None or path in order:
            return
        needed = re.search(rb"\0depends=([^\0]*)\0", b"\0" + path.read_bytes())
        for other in needed[1].decode().split(",") if needed and needed[1] else ():
            add(other.replace("-", "_"))
        order.append(path)

    for name in MODULES:
        add(name)
    return order
