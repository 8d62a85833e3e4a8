"""Run by the system's Python: for each number of hosts on standard input, one network from start to end, timed, as a JSON line.

Hosts on one Linux bridge, no controller, no shaping: what Mininet does fastest, and the same network as ours.
"""

from __future__ import annotations

import json
import sys
import time

from mininet.log import setLogLevel  # type: ignore[import-not-found]
from mininet.net import Mininet  # type: ignore[import-not-found]
from mininet.nodelib import LinuxBridge  # type: ignore[import-not-found]
from mininet.topo import SingleSwitchTopo  # type: ignore[import-not-found]


def one(hosts: int) -> dict[str, float]:
    """One network of so many hosts."""
    start = time.perf_counter()
    net = Mininet(topo=SingleSwitchTopo(k=hosts), switch=LinuxBridge, controller=None)
    net.start()
    grown = time.perf_counter()
    for host in net.hosts:
        host.sendCmd("hostname")
    outputs = [host.waitOutput().strip() for host in net.hosts]
    answered = time.perf_counter()
    memory = sum(proportional_set_size(host.pid) for host in net.hosts) / hosts
    leaving = time.perf_counter()
    net.stop()
    gone = time.perf_counter()
    if not all(outputs):
        raise RuntimeError("a host did not answer")
    return {"up": grown - start, "command": answered - grown, "down": gone - leaving, "memory": memory}


def proportional_set_size(pid: int) -> int:
    """Memory of a process in bytes, shared pages divided among those that share them."""
    with open(f"/proc/{pid}/smaps_rollup") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


setLogLevel("critical")
for line in sys.stdin:
    print(json.dumps(one(int(line))), flush=True)
