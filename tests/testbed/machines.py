"""Servers that can be logged in to, in place of those that the testbed only pretends.

For each server that Nova has, an SSH server in a network of its own, at the addresses that Neutron gave, with the keys that its user data
say. From the desk only the one is reached that has the floating IP.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from typing import Any

import openstack

from tests.providers.sshd import Lab, Machine
from wardian.providers.local import netlink

DESK = "203.0.113.251"
"""Where the desk is on the network of floating IPs."""

_CLOUD_INIT = """#!/bin/sh
echo "$(hostname) $*" >> {root}/booted
"""


class Servers(Lab):
    """Machines for the servers whose names begin with a word."""

    def __init__(self) -> None:
        super().__init__("10.94.0")
        self._word = ""
        self._floating: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow)
        self.error: BaseException | None = None
        programs = self.root / "bin"
        programs.mkdir()
        (programs / "cloud-init").write_text(_CLOUD_INIT.format(root=self.root))
        (programs / "cloud-init").chmod(0o755)
        self._options = f"SetEnv PATH={programs}:{os.environ['PATH']}\n"
        self._address("desk", "eth0", DESK)

    def follow(self, word: str) -> None:
        """Begin to make a machine for each server that appears."""
        self._word = word
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        super().close()

    def _follow(self) -> None:
        cloud = openstack.connect(cloud="testbed-admin", api_timeout=60)
        try:
            while not self._ended.wait(2):
                there = list(cloud.compute.servers(all_projects=True, name=f"^wardian-{self._word}"))
                for server in there:
                    if server.status == "ACTIVE":
                        self._serve(cloud, server)
                for name in self.machines.keys() - {_node(server) for server in there}:
                    self._end(self.machines.pop(name))
        except BaseException as error:
            self.error = error
            raise
        finally:
            cloud.close()

    def _serve(self, cloud: Any, server: Any) -> None:
        said = json.loads(base64.b64decode(server.user_data).decode().removeprefix("#cloud-config\n"))
        name = said["hostname"]
        found = {net: item["addr"] for net, items in server.addresses.items() for item in items if item["OS-EXT-IPS:type"] == "fixed"}
        if name not in self.machines:
            (access,) = [address for net, address in found.items() if net.endswith(".access")]
            self.fabric.node(name, access)
            self._plug(name, name, "eth0", access, fresh=False)
            self._address(name, "eth0", access, 22)
            for number, address in enumerate(address for net, address in found.items() if not net.endswith(".access")):
                self._plug(name, f"{name}.{number}", f"eth{number + 1}", address, fresh=True)
            machine = Machine(self, name, access, self._options, "/bin/bash", "", 22)
            machine.origin = name
            private = said["ssh_keys"]["ed25519_private"]
            (machine.folder / "key").write_text(private)
            (self.root / "authorized").write_text("\n".join(said["ssh_authorized_keys"]) + "\n")
            machine.start()
            self.machines[name] = machine
        ports = {port.id for port in cloud.network.ports(device_id=server.id)}
        for item in cloud.network.ips():
            if item.port_id in ports and item.id not in self._floating:
                self._floating.add(item.id)
                self._address(name, "eth0", item.floating_ip_address)

    def _end(self, machine: Machine) -> None:
        """Its server is gone, and so is all that ran on it."""
        assert machine.process is not None
        machine.process.kill()
        machine.process.wait()
        os.close(self.fabric.namespaces.pop(machine.name))

    def _plug(self, name: str, port: str, interface: str, address: str, *, fresh: bool) -> None:
        with netlink.Netlink.into(self.fabric.fd) as net:
            if fresh:
                net.send([netlink.veth(port, interface, peer_namespace=self.fabric.namespaces[name])])
            net.send([netlink.change(net.index(port), up=True), netlink.change(net.index(port), master=net.index("switch"))])
        if fresh:
            self._address(name, interface, address)

    def _address(self, name: str, interface: str, address: str, length: int = 24) -> None:
        with netlink.Netlink.into(self.fabric.namespaces[name]) as net:
            net.send([netlink.change(net.index(part), up=True) for part in ("lo", interface)])
            net.send([netlink.address(net.index(interface), f"{address}/{length}")])


def _node(server: Any) -> str:
    """The host name of a server's node."""
    return str(server.metadata["wardian-node"]).replace("[", "-").rstrip("]")
