"""Real OpenSSH servers, each on a machine of its own as far as it can tell: its own network, processes, home, /etc and folders in memory.

They hang on one switch in namespaces that are held by descriptors of this process; a `ssh` that starts in the network of the desk reaches
them. Nothing of it shows on the machine that runs the tests.
"""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.providers.fabrics import Fabric
from tests.stage import require
from wardian.providers.local import netlink

USER, PASSWORD = "fern", "maiden hair"
SSHD = "/usr/sbin/sshd"

_INSIDE = """
set -e
mount --make-rprivate /
mount -t overlay overlay -o lowerdir=/etc,upperdir={folder}/etc,workdir={folder}/work /etc
mount -t tmpfs none /tmp -o mode=1777
mount -t tmpfs none /run
mount -t tmpfs none /dev/shm
{home}
mkdir -p /run/sshd /home
mount -t tmpfs none /home -o mode=755
mkdir -m 700 /home/{user}
grep -q '^{user}:' /etc/passwd || {{
  echo '{user}:x:4242:4242::/home/{user}:{shell}' >> /etc/passwd
  echo '{user}:x:4242:' >> /etc/group
  echo '{user}:{hash}:19000:0:99999:7:::' >> /etc/shadow
}}
chown 4242:4242 /home/{user}
sed -i 's|^\\(root:.*\\):[^:]*$|\\1:{shell}|' /etc/passwd
hostname {name}
exec {sshd} -D -e -f {folder}/config
"""

_CONFIG = """
Port {port}
HostKey {folder}/key
AuthorizedKeysFile {root}/authorized
PidFile none
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
LogLevel ERROR
MaxStartups 200
"""


class Machine:
    """One machine with an SSH server. address: where it is; was_off: whether it was ever switched off."""

    def __init__(self, lab: Lab, name: str, address: str, options: str, shell: str, size: str, port: int) -> None:
        self.lab, self.name, self.address, self.port = lab, name, address, port
        self.folder = lab.root / name
        self.origin = "desk"
        self.shell, self.size = shell, size
        for part in ("etc", "work", "home"):
            (self.folder / part).mkdir(parents=True)
        self._key()
        (self.folder / "config").write_text(options + _CONFIG.format(folder=self.folder, root=lab.root, port=port))
        self.process: subprocess.Popen[bytes] | None = None
        self.was_off = False

    def start(self) -> None:
        """Switch it on, and wait until it takes connections."""
        if self.process is not None:
            return
        small = f"mount -t tmpfs none /root -o mode=700,size={self.size}"
        inside = _INSIDE.format(
            folder=self.folder, name=self.name, user=USER, shell=self.shell, hash=self.lab.hash, sshd=SSHD,
            home=small if self.size else f"mount --bind {self.folder}/home /root",
        )  # fmt: skip
        network = f"/proc/{os.getpid()}/fd/{self.lab.fabric.namespaces[self.name]}"
        command = ["nsenter", f"--net={network}", "unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "sh", "-c", inside], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={"PATH": os.environ["PATH"]}
            )
        # an emulated processor takes its time
        deadline = time.monotonic() + 90
        while True:
            try:
                self.lab.connect(self.origin, self.address, self.port).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"exit code {self.process.poll()}: {(self.folder / 'log').read_text()}") from None
                time.sleep(0.01)

    def stop(self) -> None:
        """Switch it off; what is in its home stays."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None
            self.was_off = True
            # its network is held by the lab, and must not remember what a machine that is off forgets
            with netlink.Netlink.into(self.lab.fabric.namespaces[self.name]) as net:
                net.send([netlink.remove_qdisc(net.index("eth0"))], ignore=(errno.ENOENT,))
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                try:
                    self.lab.connect(self.origin, self.address, self.port).close()
                except OSError:
                    return
                time.sleep(0.01)

    def plug(self, up: bool) -> None:
        """Plug its network cable in or out: without it everything that is sent is lost in silence."""
        with netlink.Netlink.into(self.lab.fabric.fd) as net:
            net.send([netlink.change(net.index(self.name), up=up)])

    def change_key(self) -> None:
        """Give it a host key that it did not have."""
        was_on = self.process is not None
        self.stop()
        (self.folder / "key").unlink()
        self._key()
        if was_on:
            self.start()

    @property
    def fingerprint(self) -> str:
        """Of its host key."""
        said = subprocess.run(["ssh-keygen", "-lf", self.folder / "key.pub"], capture_output=True, text=True, check=True)
        return said.stdout.split()[1]

    def connections(self) -> int:
        """How many connections its server has."""
        return int(self.run("grep -lE '^sshd: [a-z]+@' /proc/[0-9]*/cmdline | wc -l"))

    def run(self, script: str) -> str:
        """What a shell script prints there, run from outside of SSH."""
        # its root is said, too: where these tests run in a chroot, that is not the root of its mounts
        inside = ["nsenter", f"--target={self._inner()}", "--pid", "--mount", "--uts", "--net", "--root", "sh", "-c", script]
        return subprocess.run(inside, capture_output=True, text=True, check=True).stdout

    def _inner(self) -> int:
        assert self.process is not None
        # unshare has one child, the first process of the machine
        return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0])

    def _key(self) -> None:
        (self.folder / "key.pub").unlink(missing_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / "key"], check=True)


class Lab:
    """A desk and machines around a switch. runtime: folder for XDG_RUNTIME_DIR, so that connections to machines are the lab's own."""

    def __init__(self, subnet: str = "10.97.0") -> None:
        require("ssh")
        if not Path(SSHD).exists():
            pytest.skip("needs openssh-server")
        self.subnet = subnet
        self.root = Path(tempfile.mkdtemp(prefix="wlab-", dir="/var/tmp"))
        self.root.chmod(0o755)
        self.fabric = Fabric()
        self.fabric.bridge("switch")
        self.machines: dict[str, Machine] = {}
        self.hash = subprocess.run(["openssl", "passwd", "-6", PASSWORD], capture_output=True, text=True, check=True).stdout.strip()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.root / "id"], check=True)
        (self.root / "authorized").write_text((self.root / "id.pub").read_text())
        self._attach("desk", 1)
        network = f"/proc/{os.getpid()}/fd/{self.fabric.namespaces['desk']}"
        self.ssh = self.root / "ssh"
        self.ssh.write_text(f'#!/bin/sh\nexec nsenter --net={shlex.quote(network)} ssh "$@"\n')
        self.ssh.chmod(0o755)
        self.known_hosts = self.root / "known_hosts"
        (self.root / "config").write_text("")
        self.runtime = self.root / "run"
        self.runtime.mkdir(mode=0o700)

    def machine(
        self, name: str, *, options: str = "", shell: str = "/bin/bash", size: str = "", port: int = 22, on: bool = True
    ) -> Machine:
        """A new machine. options: lines of its sshd_config; size: of its home, which is then small and in memory."""
        number = len(self.machines) + 10
        self._attach(name, number)
        self.machines[name] = made = Machine(self, name, f"{self.subnet}.{number}", options, shell, size, port)
        if on:
            made.start()
        return made

    def behind(self, bastion: str, name: str) -> Machine:
        """A new machine that is joined by a cable to another one, and to nothing else."""
        address, namespace = f"{self.subnet.rpartition('.')[0]}.250.2", self.fabric.make(name)
        with netlink.Netlink.into(self.fabric.namespaces[bastion]) as net:
            net.send([netlink.veth("back", "eth0", peer_namespace=namespace)])
            net.send([netlink.address(net.index("back"), f"{address[:-1]}1/24")])
        with netlink.Netlink.into(namespace) as net:
            net.send([netlink.change(net.index(part), up=True) for part in ("lo", "eth0")])
            net.send([netlink.address(net.index("eth0"), f"{address}/24")])
        self.machines[name] = made = Machine(self, name, address, "", "/bin/bash", "", 22)
        made.origin = bastion
        made.start()
        return made

    def settings(self, *names: str, **others: object) -> dict[str, object]:
        """Settings of the provider for these machines, by default all."""
        hosts = [self.host(name) for name in names or self.machines]
        common = {"ssh": str(self.ssh), "config": str(self.root / "config"), "known_hosts": str(self.known_hosts)}
        return {"hosts": hosts, "host_keys": "accept-new", **common, **others}

    def host(self, name: str, **others: object) -> dict[str, object]:
        """One entry of `hosts:`."""
        machine = self.machines[name]
        port = {} if machine.port == 22 else {"port": machine.port}
        return {"name": name, "address": machine.address, "user": "root", "key": str(self.root / "id"), **port, **others}

    def connect(self, origin: str, address: str, port: int) -> socket.socket:
        """A connection from the desk or a machine."""
        return netlink.in_namespace(self.fabric.namespaces[origin], lambda: socket.create_connection((address, port), 5))

    def close(self) -> None:
        """Switch everything off, and leave nothing behind."""
        for machine in self.machines.values():
            if machine.process is not None:
                machine.process.send_signal(signal.SIGKILL)
                machine.process.wait()
        self.fabric.close()
        for _ in range(50):
            with suppress(OSError):
                shutil.rmtree(self.root)
                return
            time.sleep(0.02)

    def _attach(self, name: str, number: int) -> None:
        self.fabric.node(name, f"{self.subnet}.{number}")
        with netlink.Netlink.into(self.fabric.fd) as net:
            net.send([netlink.change(net.index(name), master=net.index("switch"))])
        with netlink.Netlink.into(self.fabric.namespaces[name]) as net:
            net.send([netlink.change(net.index("lo"), up=True)])
