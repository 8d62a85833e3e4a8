"""Mininet's scripts are followed, never run: hosts, switches and links, with what stands in the way of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wardian.errors import ExperimentFileError
from wardian.experiment.model import Experiment

from .test_importing import imported, said

CLASS = """\
from mininet.topo import Topo
from mininet.link import TCLink

class Wan(Topo):
    "Two sites"
    BANDWIDTH = 50

    def build(self, n=2, delay='10ms', **opts):
        wan = dict(bw=self.BANDWIDTH, delay=delay, loss=0.5, max_queue_size=200)
        left, right = [self.addSwitch('s%d' % i) for i in (1, 2)]
        self.addLink(left, right, cls=TCLink, **wan)
        for side, switch in enumerate([left, right], 1):
            self.site(side, switch, n)

    def site(self, side, switch, n):
        for h in range(n):
            host = self.addHost(f'h{side}{h}', mac='00:00:00:00:00:01')
            self.addLink(host, switch, bw=10, jitter='100us', **{'delay': '1ms'})
"""


def topology_of(script: str, **how: Any) -> Experiment:
    """The experiment that a script makes."""
    return imported("net.py", script, **how).experiment


def test_class_with_loops_and_helpers() -> None:
    """Loops, f-strings, keyword dictionaries, class constants and helper methods are followed; shapes become those of links."""
    experiment = topology_of(CLASS)
    assert [*experiment.nodes] == ["h10", "h11", "h20", "h21"]
    link = experiment.links["s1-s2"]
    assert (link.between, link.rate, link.delay, link.loss) == (("s1", "s2"), 50_000_000, 0.01, 0.005)
    assert link.queue
    assert link.queue.packets == 200
    access = (experiment.nodes["h20"].networks or {})["s2"]
    assert (access.rate, access.delay, access.jitter) == (10_000_000, 0.001, 0.0001)


def test_arguments_of_the_script_count() -> None:
    """What the script itself passes to its topology is used, and the script need not be one that is started."""
    run = "\nif __name__ == '__main__':\n    net = Mininet(topo=Wan(n=1, delay='5'), link=TCLink)\n    net.start()\n"
    experiment = topology_of(CLASS + run)
    assert [*experiment.nodes] == ["h10", "h20"]
    # tc(8) reads a time without a unit as microseconds
    assert experiment.links["s1-s2"].delay == pytest.approx(5e-6)
    assert [*topology_of(CLASS + "\ntopos = {'wan': lambda: Wan(3)}\n").nodes] == ["h10", "h11", "h12", "h20", "h21", "h22"]


def test_init_of_older_scripts() -> None:
    """Topologies that are made in __init__, and classes that derive from each other, are followed."""
    script = """\
from mininet.topo import Topo
class Base(Topo):
    def __init__(self):
        Topo.__init__(self)
        self.hosts_made = []
        self.core = self.addSwitch('core')
        for i in range(1, 3):
            self.hosts_made.append(self.addHost('h' + str(i)))
class More(Base):
    def __init__(self):
        super(More, self).__init__()
        for host in self.hosts_made:
            self.addLink(host, self.core)
topos = {'more': More}
"""
    experiment = topology_of(script)
    assert {name: [*(node.networks or ())] for name, node in experiment.nodes.items()} == {"h1": ["core"], "h2": ["core"]}


def test_script_without_a_class() -> None:
    """What is added to a Mininet object counts as well; links of two hosts are networks."""
    script = """\
from mininet.net import Mininet
def run():
    net = Mininet()
    h1 = net.addHost('h1', ip='10.0.1.5/24')
    h2 = net.addHost('h2', ip='10.0.1.6/24')
    net.addLink(h1, h2, delay='2ms')
    net.start()
    print(h1.cmd('ping -c1 10.0.1.6'))
    h2.setIP('10.0.1.7/24')
run()
"""
    made = imported("net.py", script)
    assert str(made.experiment.networks["h1-h2"].subnet) == "10.0.1.0/24"
    assert {name: str((node.networks or {})["h1-h2"].address) for name, node in made.experiment.nodes.items()} == {
        "h1": "10.0.1.5", "h2": "10.0.1.6"}  # fmt: skip
    left = said(made, "left")
    assert "net.py:8: cmd" in left
    assert "net.py:9: setIP" in left


def test_routers() -> None:
    """A host that forwards routes between its networks, with the addresses of its links."""
    script = """\
from mininet.node import Node
from mininet.topo import Topo
class LinuxRouter(Node):
    def config(self, **params):
        self.cmd('sysctl net.ipv4.ip_forward=1')
class Net(Topo):
    def build(self):
        r = self.addNode('r0', cls=LinuxRouter, ip='192.168.1.1/24')
        a, b = [self.addSwitch(s) for s in ('s1', 's2')]
        self.addLink(a, r, intfName2='r0-eth1', params2={'ip': '192.168.1.9/24'})
        self.addLink(b, r, intfName2='r0-eth2', params2={'ip': '172.16.0.9/12'})
        self.addLink(self.addHost('h1', ip='192.168.1.100/24', defaultRoute='via 192.168.1.1'), a)
"""
    made = imported("net.py", script)
    router = made.experiment.nodes["r0"]
    assert router.routes
    assert [str(access.address) for access in (router.networks or {}).values()] == ["192.168.1.9", "172.16.0.9"]
    assert not made.experiment.nodes["h1"].routes
    assert "routes are found" in said(made, "changed")


@pytest.mark.parametrize(
    ("call", "nodes", "networks", "links"),
    [
        ("SingleSwitchTopo(4)", 4, 1, 0),
        ("LinearTopo(k=3)", 3, 3, 2),
        ("LinearTopo(k=2, n=2)", 4, 2, 1),
        ("TreeTopo(depth=2, fanout=3)", 9, 4, 3),
        ("MinimalTopo()", 2, 1, 0),
    ],
)
def test_standard_topologies(call: str, nodes: int, networks: int, links: int) -> None:
    """The topologies that Mininet brings along are known by their parameters."""
    experiment = topology_of(f"from mininet.net import Mininet\nnet = Mininet(topo={call})\n")
    assert (len(experiment.nodes), len(experiment.networks), len(experiment.links)) == (nodes, networks, links)


def test_what_only_running_tells_is_left_with_its_line() -> None:
    """Hosts whose names or number depend on arguments, files or chance are left out, each with its line."""
    script = """\
import sys, random
from mininet.topo import Topo
class Net(Topo):
    def build(self):
        s = self.addSwitch('s1')
        self.addLink(self.addHost('h1'), s)
        for i in range(int(sys.argv[1])):
            self.addHost('x%d' % i)
        if random.random() > 0.5:
            self.addHost('y')
        while True:
            self.addHost('z')
        self.addHost(open('names').read())
        self.addLink(self.addHost('h2'), s, bw=random.randint(1, 9), loss=2)
"""
    made = imported("net.py", script)
    assert [*made.experiment.nodes] == ["h1", "h2"]
    assert (made.experiment.nodes["h2"].networks or {})["s1"].loss == 0.02
    lines = {note.spot.line for note in made.report.of("left")}
    assert {7, 9, 11, 13, 14} <= lines


def test_presets_and_defaults() -> None:
    """Parameters that are set beforehand hold for all links, and a default stands for an argument that only running tells."""
    script = """\
import sys
from functools import partial
from mininet.topo import Topo
class Net(Topo):
    def build(self, n=2):
        s = self.addSwitch('s1')
        for i in range(n):
            self.addLink(self.addHost('h%d' % i), s)
link = partial(TCLink, delay='30ms', bw=100)
net = Mininet(topo=Net(n=int(sys.argv[1])), link=link)
"""
    made = imported("net.py", script)
    shapes = {name: (node.networks or {})["s1"] for name, node in made.experiment.nodes.items()}
    assert {name: (shape.delay, shape.rate) for name, shape in shapes.items()} == {"h0": (0.03, 10**8), "h1": (0.03, 10**8)}
    assert "net.py:5: n: is only known when the script runs: its default is taken" in said(made, "changed")


def test_nothing_is_run(tmp_path: Path) -> None:
    """A script that would write a file, were it run, writes none."""
    trace = tmp_path / "trace"
    script = f"""\
import os
from mininet.topo import Topo
open({str(trace)!r}, 'w').write('run')
__import__('os').system('touch {trace}')
[c for c in ().__class__.__base__.__subclasses__()]
eval("open({str(trace)!r}, 'w')")
class Net(Topo):
    def build(self):
        self.addHost('h1')
        os.system('touch {trace}')
"""
    assert [*topology_of(script).nodes] == ["h1"]
    assert not trace.exists()


@pytest.mark.parametrize(
    "body",
    [
        "for i in range(10**12): self.addHost('h%d' % i)",
        "x = 'a' * 10**12",
        "x = 10 ** 10 ** 10",
        "x = '%1000000000d' % 1",
        "x = f'{1:999999999}'",
        "x = [1]\n        for i in range(60): x = [x, x]\n        y = str(x)",
        "x = (1,)\n        for i in range(60): x = (x, x)\n        y = {x: 1}",
        "x = []\n        x.append(x)\n        y = str(x)",
        "self.build()",
        "x = [a for a in range(20000) for b in range(20000)]",
        "x = 'a'.join(['b' * 20000] * 20000)",
        "x = " + "(" * 300 + "1" + ")" * 300,
        "x = " + "+".join(["1"] * 5000),
    ],
)
def test_scripts_that_would_never_end(body: str) -> None:
    """A script made to take all time or memory gives what it has, or one error, and takes neither."""
    script = f"from mininet.topo import Topo\nclass Net(Topo):\n    def build(self):\n        self.addHost('h1')\n        {body}\n"
    try:
        assert [*topology_of(script).nodes] == ["h1"]
    except ExperimentFileError as error:
        if len(error.problems) != 1:
            raise


@pytest.mark.parametrize(
    ("script", "line", "word"),
    [
        ("from mininet.topo import Topo\nclass Net(Topo)\n    pass\n", 2, "not valid Python"),
        ("from mininet.topo import Topo\n", 1, "no topology"),
        ("print 'hello'\n", 1, "not valid Python"),
        (
            "from mininet.topo import Topo\nclass N(Topo):\n    def build(self):\n        for h in x(): self.addHost(h)\n",
            4,
            "when it runs",
        ),
        ("x = '\0'\n", 1, "null bytes"),
    ],
)
def test_no_topology(script: str, line: int, word: str) -> None:
    """What is no Python, or makes no topology that can be followed, is an error with its line."""
    with pytest.raises(ExperimentFileError) as caught:
        topology_of(script)
    assert caught.value.problems[0].line == line
    assert word in str(caught.value)


def test_second_links() -> None:
    """Switches are joined once, hosts are on a switch once; a second link is said with its line."""
    script = """\
from mininet.topo import Topo
class Net(Topo):
    def build(self):
        a, b, h = self.addSwitch('s1'), self.addSwitch('s2'), self.addHost('h1')
        self.addLink(a, b)
        self.addLink(b, a)
        self.addLink(h, a)
        self.addLink(h, a)
        self.addLink(h, 'nowhere')
"""
    made = imported("net.py", script)
    assert len(made.experiment.links) == 1
    assert {6, 8, 9} <= {note.spot.line for note in made.report.of("left")}
