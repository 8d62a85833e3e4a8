"""Run by the system's Python: for each number of hosts on standard input, one network from start to end, timed, as a JSON line.

Hosts on one Linux bridge, no controller, no shaping: what Mininet does fastest, and the same network as ours.
"""

import json
import sys
import time

from mininet.log import setLogLevel
from mininet.net import Mininet
from mininet.nodelib import LinuxBridge
from mininet.topo import SingleSwitchTopo


def one(hosts):
    """One network of so many hosts."""
    times = [time.perf_counter()]
    net = Mininet(topo=SingleSwitchTopo(k=hosts), switch=LinuxBridge, controller=None)
    net.start()
    times.append(time.perf_counter())
    for host in net.hosts:
        host.cmd("hostname")
    times.append(time.perf_counter())
    for host in net.hosts:
        host.sendCmd("hostname")
    outputs = [host.waitOutput().strip() for host in net.hosts]
    times.append(time.perf_counter())
    memory = sum(map(proportional_set_size, (host.pid for host in net.hosts))) / hosts
    start = time.perf_counter()
    net.stop()
    stop = time.perf_counter() - start
    if not all(outputs):
        raise RuntimeError("a host did not answer")
    up, serial, command = (after - before for before, after in zip(times, times[1:]))
    return {"up": up, "serial": serial, "command": command, "down": stop, "memory": memory}


def proportional_set_size(pid):
    """Memory of a process in bytes, shared pages divided among those that share them."""
    with open(f"/proc/{pid}/smaps_rollup") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


setLogLevel("critical")
for line in sys.stdin:
    print(json.dumps(one(int(line))), flush=True)
