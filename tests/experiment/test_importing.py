"""Topologies of other tools become experiments that can be planned, with a report of what is otherwise."""

from __future__ import annotations

import posixpath
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wardian.cli.experiments import KINDS
from wardian.errors import ExperimentFileError
from wardian.experiment import file, importing, topology
from wardian.experiment.importing import Imported


class Memory:
    """A folder that is not on a disk."""

    def __init__(self, texts: dict[str, str | bytes]) -> None:
        self.texts = {name: text.encode() if isinstance(text, str) else text for name, text in texts.items()}

    def read(self, path: str) -> bytes | None:
        return self.texts.get(posixpath.normpath(path))

    def files(self, path: str) -> list[str] | None:
        inside = "" if posixpath.normpath(path) == "." else posixpath.normpath(path) + "/"
        return sorted(name.removeprefix(inside) for name in self.texts if name.startswith(inside)) or None


def imported(name: str, text: str, beside: dict[str, str] | None = None, **how: Any) -> Imported:
    """What becomes of a file; its experiment file reads back as the experiment, and expands to resources."""
    made = importing.import_topology(name, Memory({**(beside or {}), name: text}), **how)
    assert file.loads(made.text) == made.experiment
    topology.expand(made.experiment)
    return made


def said(made: Imported, outcome: str) -> str:
    return "\n".join(map(str, made.report.of(outcome)))  # type: ignore[arg-type]


LAB = """\
LAB_DESCRIPTION="A router between two hosts"
# comment
pc1[0]="A"
pc1[image]="kathara/frr"
pc2[0]=B/00:00:00:00:00:02   # with a hardware address
r1[0]="A"
r1[1]="B"
r1[3]="C"
r1[mem]="64m"
r1[cpus]=0.5
r1[bridged]=true
r1[port]="8080:80/tcp"
r1[env]="LEVEL=3"
r1[exec]="ip link show"
r1[sysctl]="net.ipv4.tcp_syncookies=0"
"""


class TestKathara:
    def test_networks_and_interfaces_keep_their_order(self) -> None:
        """Collision domains are networks, and an interface keeps its number although one before it is missing."""
        experiment = imported("lab.conf", LAB).experiment
        assert [*(experiment.nodes["r1"].networks or ())] == ["a", "b", "r1-eth2", "c"]
        assert experiment.nodes["r1"].routes
        assert not experiment.nodes["pc1"].routes
        assert experiment.description == "A router between two hosts"

    def test_options_of_nodes(self) -> None:
        """Image, memory, processors, internet access, ports and variables are taken over; the usual image is that of Kathará."""
        nodes = imported("lab.conf", LAB).experiment.nodes
        assert (nodes["pc1"].image, nodes["pc2"].image) == ("kathara/frr", "kathara/base")
        router = nodes["r1"]
        assert (router.memory, router.cpus, router.internet, router.env) == (64 * 2**20, 0.5, True, {"LEVEL": "3"})
        assert [(port.host, port.node, str(port.address)) for port in router.ports] == [(8080, 80, "127.0.0.1")]

    def test_what_is_left_is_said_with_its_line(self) -> None:
        """What has no counterpart stands in the report with file and line, and in the experiment file at its node."""
        made = imported("lab.conf", LAB)
        assert "lab.conf:5: pc2[0]: interfaces have hardware addresses" in said(made, "left")
        assert "lab.conf:15: r1[sysctl]" in said(made, "left")
        above, _, _ = made.text.partition("\n  r1:\n")
        assert "lab.conf:15" in above.splitlines()[-1]

    def test_scripts_and_files(self) -> None:
        """Startup scripts are copied and run by a service that then stays; the node's folder is copied file by file to its root."""
        beside = {"shared.startup": "true\n", "pc1.startup": "ip addr add 10.0.0.1/24 dev eth0\n", "pc1/etc/motd": "hi", "shared/x": "1"}
        made = imported("lab.conf", LAB, beside)
        pc1 = {item.source: item.target for item in made.experiment.nodes["pc1"].files}
        assert pc1 == {"pc1/etc/motd": "/etc/motd", "shared/x": "/shared/x", "shared.startup": "/hostlab/shared.startup",
                       "pc1.startup": "/hostlab/pc1.startup"}  # fmt: skip
        service = made.experiment.services["pc1-startup"]
        lines = str(service.command).splitlines()
        assert lines[:2] == ["/bin/bash /hostlab/shared.startup", "/bin/bash /hostlab/pc1.startup"]
        assert lines[-1].startswith("exec sleep")
        assert service.ready
        assert service.ready.log
        assert "ip link show" in str(made.experiment.services["r1-startup"].command)
        assert set(made.files) == set(beside)

    def test_on_local_images_are_left_out(self) -> None:
        """With `local` nodes have the host's files: images are left out and said to be."""
        made = imported("lab.conf", LAB, provider="local")
        assert made.experiment.provider == "local"
        assert all(node.image is None and not node.capabilities for node in made.experiment.nodes.values())
        assert "pc1[image]" in said(made, "left")

    def test_line_that_is_none(self) -> None:
        """A line that is none of a lab is an error with its number."""
        with pytest.raises(ExperimentFileError) as caught:
            imported("lab.conf", LAB + "r1[0 = oops\n")
        assert [problem.line for problem in caught.value.problems] == [16]


CLAB = """\
name: dc_1
mgmt: {network: custom, ipv4-subnet: 172.100.0.0/24}
topology:
  defaults:
    kind: linux
    env: {A: 1}
  kinds:
    linux: {image: "debian:${RELEASE:=12}"}
    nokia_srlinux: {image: ghcr.io/nokia/srlinux}
  nodes:
    Leaf_1:
      kind: nokia_srlinux
      startup-config: leaf.cfg
    r1:
      group: routers
      mgmt-ipv4: 172.100.0.11
      memory: 1gb
      cpu: 1.5
      env: {B: two}
      exec:
        - ip addr add 10.0.0.1/30 dev eth1
      binds:
        - r1/frr.conf:/etc/frr/frr.conf:ro
    h1: {cmd: sleep 1d, ports: ["8080:80"]}
    br0: {kind: bridge}
  links:
    - endpoints: ["Leaf_1:e1-2", "r1:eth1"]
      mtu: 9000
    - endpoints: ["Leaf_1:e1-1", "h1:eth1"]
    - endpoints: ["r1:eth3", "br0:p1"]
    - endpoints: ["h1:eth2", "br0:p2"]
    - endpoints: ["h1:eth3", "host:veth0"]
    - type: veth
      endpoints:
        - {node: r1, interface: eth2, ipv4: 10.9.0.2/24}
        - {node: h1, interface: eth4, ipv4: 10.9.0.3/24}
"""


class TestContainerlab:
    def test_links_are_networks_and_interfaces_keep_their_numbers(self) -> None:
        """Each link is a network, a bridge is one, eth0 is on the management network, and what is missing in between is there."""
        experiment = imported("dc.clab.yml", CLAB).experiment
        networks = {name: [*(node.networks or ())] for name, node in experiment.nodes.items()}
        assert networks["r1"] == ["mgmt", "leaf-1-r1", "r1-h1", "br0"]
        assert networks["h1"] == ["mgmt", "leaf-1-h1", "br0", "h1-host", "r1-h1"]
        assert networks["leaf-1"] == ["mgmt", "leaf-1-h1", "leaf-1-r1"]
        assert experiment.networks["leaf-1-r1"].mtu == 9000

    def test_inheritance_and_options(self) -> None:
        """Defaults, kinds and groups are laid under what a node says; variables have their defaults."""
        made = imported("dc.clab.yml", CLAB)
        router = made.experiment.nodes["r1"]
        assert (router.image, router.env, router.roles) == ("debian:12", {"A": "1", "B": "two"}, ["routers"])
        assert (router.memory, router.cpus) == (2**30, 1.5)
        assert router.routes
        assert [(item.source, item.target, item.read_only) for item in router.volumes] == [("./r1/frr.conf", "/etc/frr/frr.conf", True)]
        assert made.experiment.services["h1"].command == ["sleep", "1d"]
        assert "ip addr add 10.0.0.1/30 dev eth1" in str(made.experiment.services["r1-exec"].command)
        assert made.experiment.name == "dc-1"

    def test_addresses(self) -> None:
        """Addresses of the management network and of links are kept where they can be."""
        experiment = imported("dc.clab.yml", CLAB).experiment
        assert str(experiment.networks["mgmt"].subnet) == "172.100.0.0/24"
        networks = experiment.nodes["r1"].networks or {}
        assert (str(networks["mgmt"].address), str(networks["r1-h1"].address)) == ("172.100.0.11", "10.9.0.2")

    def test_report(self) -> None:
        """Network systems, their configuration, renamed interfaces and links to the host are in the report."""
        made = imported("dc.clab.yml", CLAB)
        changed, left = said(made, "changed"), said(made, "left")
        assert "kind nokia_srlinux" in changed
        assert "e1-1 is eth1, e1-2 is eth2" in changed
        assert "dc.clab.yml:13: topology.nodes.Leaf_1.startup-config" in left
        assert "leads to host" in left
        assert "Leaf_1 is leaf-1" in changed

    def test_binds_elsewhere(self) -> None:
        """Paths of folders that stay where they are lead there from the experiment; on `local` files are copied in their place."""
        far = imported("dc.clab.yml", CLAB, prefix="../labs").experiment.nodes["r1"].volumes
        assert [item.source for item in far] == ["../labs/r1/frr.conf"]
        here = imported("dc.clab.yml", CLAB, {"r1/frr.conf": "!"}, provider="local").experiment.nodes["r1"]
        assert [(item.source, item.target) for item in here.files] == [("r1/frr.conf", "/etc/frr/frr.conf")]
        assert not here.volumes

    @pytest.mark.parametrize(
        ("text", "line", "word"),
        [
            ("name: x\ntopology:\n  links: []\n", 2, "topology.nodes"),
            ("name: x\ntopology: {nodes: [a]}\n", 2, "topology.nodes"),
            ("name: x\n\ttopology: 3\n", 2, "tab"),
            ("name: x\nname: y\ntopology: {nodes: {a: }}\n", 2, "twice"),
            ("", 1, "empty"),
            ("[1, 2]\n", 1, "containerlab"),
        ],
    )
    def test_no_topology(self, text: str, line: int, word: str) -> None:
        """What is no topology is an error with its line and what is expected."""
        with pytest.raises(ExperimentFileError) as caught:
            imported("x.clab.yml", text)
        assert caught.value.problems[0].line == line
        assert word in str(caught.value)


COMPOSE = """\
services:
  web_app:
    build: {context: ./web, args: [LEVEL=2]}
    ports: ["8080:80", "127.0.0.1:9000-9001:9000-9001", {target: 443, published: 8443}]
    environment:
      - DB=db
      - TOKEN
    env_file: [web.env]
    depends_on: [db]
    networks:
      front: {ipv4_address: 10.5.0.10}
      back:
  db:
    image: postgres:${PG:-16}
    command: postgres -c fsync=off
    restart: unless-stopped
    volumes: ["data:/var/lib/postgresql/data", "./init:/init:ro", "/var/run/docker.sock:/var/run/docker.sock"]
    secrets: [password]
    healthcheck: {test: ["CMD-SHELL", "pg_isready"], interval: 5s, retries: 4}
    deploy: {resources: {limits: {cpus: "0.5", memory: 256M}}}
    networks: [back]
  worker:
    extends: db
    command: ["work", "--fast"]
    networks: [back]
    deploy: {replicas: 3}
  proxy:
    image: nginx
    command: -g 'daemon off;'
  debug: {image: busybox, profiles: [debug]}
  shell: {image: busybox, tty: true}
networks:
  front: {ipam: {config: [{subnet: 10.5.0.0/24}]}}
  back: {external: true}
volumes: {data: }
secrets: {password: {file: ./password.txt}}
"""
DOCKERFILE = """\
FROM python:3.12
CMD ["serve.py"]
"""
BESIDE = {"web/Dockerfile": DOCKERFILE, "web.env": "# x\nexport MODE='fast'\n", ".env": "PG=17\nTOKEN=abc\n", "password.txt": "s"}


class TestCompose:
    def test_nodes(self) -> None:
        """Images, builds, variables, limits, counts, ports and volumes of services are those of nodes."""
        nodes = imported("compose.yaml", COMPOSE, BESIDE).experiment.nodes
        assert [*nodes] == ["web-app", "db", "worker", "proxy", "shell"]
        web, db = nodes["web-app"], nodes["db"]
        assert web.build
        assert (web.build.context, web.build.args) == ("./web", {"LEVEL": "2"})
        assert web.env == {"MODE": "fast", "DB": "db", "TOKEN": "abc"}
        assert [(port.host, port.node) for port in web.ports] == [(8080, 80), (8443, 443)]
        assert (db.image, db.cpus, db.memory, nodes["worker"].count) == ("postgres:17", 0.5, 256 * 2**20, 3)
        assert [(item.source, item.read_only) for item in db.volumes] == [("data", False), ("./init", True)]
        assert [(item.source, item.target) for item in db.files] == [("password.txt", "/run/secrets/password")]

    def test_networks(self) -> None:
        """Networks have their subnets and members their addresses; who names none is on the default one."""
        experiment = imported("compose.yaml", COMPOSE, BESIDE).experiment
        assert {name: [*(node.networks or ())] for name, node in experiment.nodes.items()} == {
            "web-app": ["front", "back"], "db": ["back"], "worker": ["back"], "proxy": ["default"], "shell": ["default"]}  # fmt: skip
        assert str((experiment.nodes["web-app"].networks or {})["front"].address) == "10.5.0.10"

    def test_commands(self) -> None:
        """A service runs what the image starts, with the file's command as its arguments; its health check is when it is ready."""
        services = imported("compose.yaml", COMPOSE, BESIDE).experiment.services
        assert (services["db"].command, services["db"].arguments) == ("image", ["postgres", "-c", "fsync=off"])
        assert services["db"].restart == "always"
        assert services["db"].ready
        assert services["db"].ready.command == ["/bin/sh", "-c", "pg_isready"]
        assert services["db"].ready.timeout == 20
        assert services["worker"].arguments == ["work", "--fast"]
        assert (services["web-app"].command, services["web-app"].arguments, services["web-app"].directory) == ("image", None, None)
        assert services["proxy"].arguments == ["-g", "daemon off;"]

    def test_commands_without_images(self) -> None:
        """Where nodes are no containers, a service runs the command that is written, if one is."""
        services = imported("compose.yaml", COMPOSE, BESIDE, provider="local").experiment.services
        assert services["db"].command == ["postgres", "-c", "fsync=off"]
        assert {"proxy", "web-app"}.isdisjoint(services)

    def test_report(self) -> None:
        """Ranges of ports, the Engine's socket, the order of starting, profiles and images at a terminal are said."""
        left = said(imported("compose.yaml", COMPOSE, BESIDE), "left")
        for words in ("compose.yaml:4: services.web_app.ports[1]", "Engine's socket", "depends_on", "of a profile", "waits at a terminal"):
            assert words in left

    def test_missing_files(self) -> None:
        """What is named and not there is left out and said, so that the experiment can be planned."""
        made = imported("compose.yaml", COMPOSE)
        left = said(made, "left")
        assert made.experiment.nodes["web-app"].build is None
        assert all(words in left for words in ("no Dockerfile", "no web.env", "no ./password.txt"))
        assert made.files == ()

    def test_paths_that_lead_out(self) -> None:
        """Files outside of the topology's folder are not copied."""
        text = "services: {a: {image: x, configs: [c]}}\nconfigs: {c: {file: ../../etc/shadow}}\n"
        made = imported("compose.yaml", text)
        assert made.files == ()
        assert "outside of the folder" in said(made, "left")


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("x.yml", CLAB, "containerlab"),
        ("x.yml", COMPOSE, "compose"),
        ("routers.txt", LAB, "kathara"),
        ("docker-compose.yml", "services: {a: }\ntopology: {}\n", "compose"),
        ("x", "from mininet.topo import Topo\n", "mininet"),
    ],
)
def test_kind_by_content(name: str, text: str, kind: str) -> None:
    """The kind is seen from what a file holds, and from its name where that leaves a doubt."""
    assert importing.detect(name, text.encode()) == kind


def test_kind_in_doubt() -> None:
    """A file that may be two kinds is an error that says so, and is read once the kind is told."""
    text = "services: {a: {image: x}}\ntopology: {nodes: {b: }}\n"
    with pytest.raises(ExperimentFileError, match="containerlab or compose"):
        imported("x.yaml", text)
    assert [*imported("x.yaml", text, kind="compose").experiment.nodes] == ["a"]


def test_kinds_of_the_command() -> None:
    """The command line offers the kinds that there are."""
    assert tuple(importing.KINDS) == KINDS


def test_names_that_collide() -> None:
    """Names that are the same once they are written as names may be are told apart, reserved ones avoided."""
    made = imported("lab.conf", "A_1[0]=X\na-1[0]=x\nall[0]=X\n3com[0]=X\n" + "z" * 60 + "[0]=X\n")
    assert [*made.experiment.nodes] == ["a-1", "a-1-2", "all-0", "n-3com", "z" * 40]
    assert [*made.experiment.networks] == ["x", "x-2"]
    assert "A_1 is a-1" in said(made, "changed")


def test_subnets_that_do_not_suffice() -> None:
    """Subnets that overlap or are too small are chosen anew, and that is said."""
    text = "services:\n" + "".join(f"  s{number}: {{image: x, networks: [n, m]}}\n" for number in range(8))
    ranges = "{ipam: {config: [{subnet: 10.1.0.0/%d}]}}"
    made = imported("compose.yaml", f"{text}networks:\n  n: {ranges % 29}\n  m: {ranges % 16}\n")
    assert all(network.subnet is None for network in made.experiment.networks.values())
    assert "overlap" in said(made, "left") or "another is chosen" in said(made, "left")
    assert "too few addresses" in said(made, "left")


def test_what_does_not_fit_together() -> None:
    """A group beside a node with the name of one of its members is one node; two bridges that are joined twice are joined once."""
    made = imported("compose.yaml", "services: {web: {image: x, scale: 3, command: a}, web-1: {image: x, command: b}}\n")
    assert [(name, node.count) for name, node in made.experiment.nodes.items()] == [("web", None), ("web-1", None)]
    assert "hostname" in said(made, "left")
    bridges = "{a: {kind: bridge}, b: {kind: bridge}, c: {image: x}}"
    links = "[{endpoints: [a:1, b:1]}, {endpoints: [b:2, a:2]}, {endpoints: [c:eth1, a:3]}]"
    made = imported("x.clab.yml", f"name: x\ntopology: {{nodes: {bridges}, links: {links}}}\n")
    assert len(made.experiment.links) == 1
    assert "same two networks" in said(made, "left")


def test_report_as_text_and_json() -> None:
    """The report counts what is kept, says what is alike once as text, and each by itself as JSON."""
    report = imported("lab.conf", "".join(f"pc{number}[0]=a\npc{number}[odd]=1\n" for number in range(3)), provider="local").report
    text = report.text()
    assert "3 nodes, 1 network" in text
    assert "lab.conf:2: pc0[odd]: has no counterpart (and 2 more like it)" in text
    assert [item["line"] for item in report.to_json()["left"]] == [2, 4, 6]


FRAGMENTS = st.sampled_from([
    "services:", "topology:", "nodes:", "links:", "networks:", "endpoints:", "image:", "command:", "build:", "ports:", "volumes:", "[", "]",
    "{", "}", "- ", "  ", "\n", ": ", "a", "b", "eth1", "a:eth1", "${X}", "${X:-1}", "null", "0", "-1", "*x", "&x ", "pc1[0]=A", "pc1[",
    "=", "'", "def build(self):\n", "self.addHost('a')\n", "for i in range(3):", "class T(Topo):\n", "\t", "#", "10.0.0.1/24", "!tag ", "é",
])  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(parts=st.lists(FRAGMENTS, max_size=25))
def test_anything_gives_a_result_or_one_error(kind: str, parts: list[str]) -> None:
    """Whatever a file holds, it gives an experiment that reads back, or an error of the file."""
    try:
        imported("x", "".join(parts), kind=kind)
    except ExperimentFileError as error:
        if not error.problems:
            raise
