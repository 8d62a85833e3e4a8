"""`wardian init --from`: a topology of another tool becomes an experiment that is planned, grown and works."""

from __future__ import annotations

import pytest

from ..stage import Stage

LAB = 'pc1[0]="A"\npc1[image]="kathara/base"\npc2[0]="B"\nr1[0]="A"\nr1[1]="B"\nr1[odd]=1\n'


def write_lab(stage: Stage) -> None:
    stage.write(LAB, "lab/lab.conf")
    for name, number in (("pc1", 1), ("pc2", 2)):
        stage.write(f"ip addr add 192.168.{number}.10/24 dev eth0\nip route add default via 192.168.{number}.1\n", f"lab/{name}.startup")
    stage.write("ip addr add 192.168.1.1/24 dev eth0\nip addr add 192.168.2.1/24 dev eth1\n", "lab/r1.startup")
    stage.write("hello\n", "lab/r1/etc/lab/motd")


@pytest.mark.root
def test_lab_works_as_it_did(stage: Stage) -> None:
    """A lab with startup scripts is imported with a report, grows on `local`, and its own addresses and routes work."""
    write_lab(stage)
    done = stage.run("init", "--from", "lab", "--provider", "local", ".")
    assert "lab.conf:6: r1[odd]: has no counterpart" in done.stdout
    assert (stage.folder / "r1" / "etc" / "lab" / "motd").read_text() == "hello\n"
    (stage.folder / "experiment.yaml").write_text(
        (stage.folder / "experiment.yaml").read_text().replace("name: lab", f"name: {stage.name}")
    )
    stage.run("up")
    stage.run("exec", "pc1", "ping", "-c", "1", "-W", "5", "192.168.2.10")
    assert "hello" in stage.run("exec", "r1", "cat", "/etc/lab/motd").stdout
    stage.run("plan", "--exit-code", code=0)
    stage.run("down")
    stage.assert_nothing_left()


def test_report_for_programs(stage: Stage) -> None:
    """`--json` prints the report and the files written, and nothing else."""
    write_lab(stage)
    said = stage.json("init", "--from", "lab/lab.conf", "out", "--json")
    assert said["report"]["kind"] == "kathara"
    assert said["report"]["kept"]["nodes"] == 3
    assert [(item["file"], item["line"]) for item in said["report"]["left"] if "r1[odd]" in item["field"]] == [("lab.conf", 6)]
    assert sorted(said["wrote"]) == ["out/experiment.yaml", "out/pc1.startup", "out/pc2.startup", "out/r1.startup", "out/r1/etc/lab/motd"]


def test_what_is_there_is_kept(stage: Stage) -> None:
    """An experiment or another file that is there stays as it is unless told otherwise, also when something of it is in the way."""
    write_lab(stage)
    stage.write("mine\n", "out/pc1.startup")
    assert "--force" in stage.error("init", "--from", "lab", "out", code=1)
    assert (stage.folder / "out" / "pc1.startup").read_text() == "mine\n"
    assert not (stage.folder / "out" / "experiment.yaml").exists()
    stage.run("init", "--from", "lab", "out", "--force")
    assert "ip addr" in (stage.folder / "out" / "pc1.startup").read_text()
    assert "--force" in stage.error("init", "--from", "lab", "out", code=1)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("notes.txt", "nothing of that kind\n", ["notes.txt", "none of the topologies"]),
        ("lab.conf", 'pc1[0]="A"\npc1 0 B\n', ["lab.conf:2", "expected NODE[INTERFACE]=NETWORK"]),
        ("x.clab.yml", "name: x\ntopology: {nodes: 3}\n", ["x.clab.yml:2", "topology.nodes"]),
        ("compose.yaml", "services:\n\t- x\n", ["compose.yaml:2", "a tab"]),
        ("net.py", "from mininet.topo import Topo\nclass A(Topo:\n", ["net.py:2", "not valid Python"]),
    ],
)
def test_what_is_no_topology(stage: Stage, name: str, text: str, words: list[str]) -> None:
    """A file that is no topology is one error with file, line and what is expected; nothing is written."""
    stage.write(text, name)
    said = stage.error("init", "--from", name, "out", code=3)
    assert [word for word in words if word not in said] == [], said
    assert not (stage.folder / "out").exists()


def test_links_that_lead_out_are_not_followed(stage: Stage) -> None:
    """A symbolic link of a lab's folder that leads out of it is as if it were not there."""
    write_lab(stage)
    (stage.folder / "secret").write_text("secret")
    (stage.folder / "lab" / "pc1").mkdir()
    (stage.folder / "lab" / "pc1" / "key").symlink_to(stage.folder / "secret")
    stage.run("init", "--from", "lab", "out")
    assert not (stage.folder / "out" / "pc1" / "key").exists()


def test_usage(stage: Stage) -> None:
    """Options that do not fit together are wrong usage; a folder with several topologies, or none, says so."""
    stage.error("init", "--kind", "compose", code=2)
    stage.error("init", "--from", "x", "--template", "wan", code=2)
    assert "no such file" in stage.error("init", "--from", "nowhere.yaml", code=3)
    write_lab(stage)
    assert "locl" in stage.error("init", "--from", "lab", "out", "--provider", "locl", code=2)
    stage.write("services: {a: {image: x}}\n", "lab/compose.yaml")
    assert "several topologies" in stage.error("init", "--from", "lab", "out", code=3)
    stage.run("init", "--from", "lab", "--kind", "compose", "out")
    (stage.folder / "empty").mkdir()
    assert "no topology in this folder" in stage.error("init", "--from", "empty", "other", code=3)
