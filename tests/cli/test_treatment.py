"""`wardian snapshot`, `reboot` and `rebuild`, on nodes of this host."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .. import images
from ..stage import Stage

pytestmark = pytest.mark.root

TEXT = """
name: NAME
networks: [lab]
nodes:
  a: {image: ./lab, env: {PLANT: fern}, networks: {lab: {delay: 5ms}}, files: {seed: /root/seed}}
  b: {networks: [lab]}
services:
  web: {on: a, command: [sh, -c, "echo up > /run/web; exec sleep 1000"], ready: {command: test -s /run/web}}
"""
LOOK = 'cat /root/seed /root/kept /tmp/t 2>/dev/null; echo "$PLANT"; ping -c 1 -W 5 b >/dev/null && echo heard; cat /run/web'


def test_what_is_done_to_nodes(stage: Stage, tmp_path: Path) -> None:
    """A reboot keeps the disk and sets the rest anew, a snapshot is an image that nodes are made from, a rebuild is the image again; a
    command that runs there meanwhile ends with an error, the plan has nothing to do, and the journal has it all."""
    stage.env |= {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    (stage.folder / "lab").symlink_to(images.without_python(bash=False))
    stage.write("seed\n", "seed")
    stage.write(TEXT)
    stage.run("up")
    stage.run("exec", "a", "--", "sh", "-c", "echo kept | tee /root/kept > /tmp/t")
    running = stage.start("exec", "a", "--", "sh", "-c", "echo on > /run/on; sleep 600")
    stage.run("exec", "a", "--", "sh", "-c", "until test -s /run/on; do sleep 0.05; done")
    said = stage.run("reboot", "a")
    assert "~ node        a  (its disk stays)" in said.stdout
    assert "done     reboot node (1)" in said.stderr
    _, errors = running.communicate(timeout=60)
    assert (running.returncode, "a: the node went away while a command ran" in errors) == (255, True), errors
    assert stage.run("exec", "a", "--", "sh", "-c", LOOK).stdout.split() == ["seed", "kept", "fern", "heard", "up"]
    made = stage.json("snapshot", "a", "lab:kept", "--json")
    assert (made["node"], made["name"], made["digest"][:7]) == ("a", "lab:kept", "sha256:")
    assert "there is an image lab:kept\n  Choose another name, or remove it: wardian image rm" in stage.error("snapshot", "a", "lab:kept", code=6)
    assert "node b: it has no image of its own" in stage.error("snapshot", "b", "lab:b", code=6)
    assert "pause" not in stage.run("fault", "ls").stdout
    stage.run("rebuild", "b", "--image", "lab:kept")
    assert stage.run("exec", "b", "--", "sh", "-c", "cat /root/kept; ls /tmp; echo ${PLANT:-bare}").stdout.split() == ["kept", "bare"]
    # with the image that it was made from, not with that of the file
    stage.run("exec", "b", "--", "rm", "/root/kept")
    stage.run("reboot", "b", "--hard")
    assert stage.run("exec", "b", "--", "sh", "-c", "ls /root; test -e /run/web || echo $0").stdout.split() == ["seed", "sh"]
    assert "there is no image moss" in stage.error("rebuild", "b", "--image", "moss", code=6)
    assert "Nothing to do" in stage.run("plan").stdout
    plan = stage.json("rebuild", "a", "--json")
    assert {"action": "rebuild", "kind": "node", "targets": ["a"]}.items() <= next(
        item for item in plan["operations"] if item["kind"] == "node"
    ).items()
    assert stage.run("exec", "a", "--", "sh", "-c", LOOK).stdout.split() == ["seed", "fern", "heard", "up"]
    assert "Nothing to do" in stage.run("plan").stdout
    log = json.loads(stage.run("log", "--json", "-n", "500").stdout)
    assert [entry["summary"] for entry in log if entry["summary"].startswith("snapshot:")] == ["snapshot: a is image lab:kept"]
