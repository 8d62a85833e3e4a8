"""What is done to real nodes of this host: rebooted, kept as images, made anew; by the command line and from Python."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from wardian.environment.environment import Environment
from wardian.errors import NodeDownError, ProviderError

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
KILLED = """
import os, signal, sys
from wardian.cli import main
from wardian.providers.local import growth

owner, name = sys.argv.pop(1).split(".")
owner = getattr(growth, owner)
whole = getattr(owner, name)

def cut(self, *arguments, **options):
    if getattr(self, "kind", "node") == "node":
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(self, *arguments, **options)

setattr(owner, name, cut)
main()
"""
"""`wardian`, killed as it begins to do something to a node: CLASS.METHOD, then its arguments."""

LOOK = 'cat /root/seed /root/kept /tmp/t 2>/dev/null; echo "$PLANT"; ping -c 1 -W 5 b >/dev/null && echo heard; cat /run/web'


async def test_what_is_done_to_nodes(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reboot keeps the disk and sets the rest anew, a snapshot is an image that nodes are made from, a rebuild is the image again; a
    command that runs there meanwhile ends with an error, a reboot that is killed loses nothing, the plan has nothing to do, and the journal
    has it all."""
    stage.env |= {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    for name in ("XDG_CACHE_HOME", "WARDIAN_STATE"):
        monkeypatch.setenv(name, stage.env[name])
    (stage.folder / "lab").symlink_to(images.without_python(bash=False))
    stage.write("seed\n", "seed")
    up = Environment(stage.write(TEXT))

    async def sh(node: str, script: str) -> list[str]:
        (result,) = await up.exec(node, ["sh", "-c", script])
        return result.stdout.split()

    await up.up()
    try:
        await sh("a", "echo kept | tee /root/kept > /tmp/t")
        running = asyncio.create_task(up.exec("a", ["sh", "-c", "echo on > /run/on; sleep 600"]))
        await sh("a", "until test -s /run/on; do sleep 0.05; done")
        said = await asyncio.to_thread(stage.run, "reboot", "a")
        assert "~ node        a  (its disk stays)" in said.stdout
        assert "done     reboot node (1)" in said.stderr
        (ended,) = await running
        assert "a: the node went away while a command ran" in ended.stderr
        assert await sh("a", LOOK) == ["seed", "kept", "fern", "heard", "up"]

        made = json.loads((await asyncio.to_thread(stage.run, "snapshot", "a", "lab:kept", "--json")).stdout)
        assert (made["node"], made["name"], made["digest"][:7]) == ("a", "lab:kept", "sha256:")
        with pytest.raises(ProviderError, match="there is an image lab:kept\n  Choose another name, or remove it: wardian image rm"):
            await up.snapshot("a", "lab:kept")
        with pytest.raises(ProviderError, match="node b: it has no image of its own"):
            await up.snapshot("b", "lab:b")
        assert await up.fault.in_force() == []

        await up.rebuild("b", image="lab:kept")
        assert await sh("b", "cat /root/kept; ls /tmp; echo ${PLANT:-bare}") == ["kept", "bare"]
        # with the image that it was made from, not with that of the file
        await sh("b", "rm /root/kept")
        await up.reboot("b", hard=True)
        assert await sh("b", "ls /root; command -v busybox") == ["seed", "busybox"]
        await up.fault.kill("a")
        with pytest.raises(NodeDownError, match="a: the node is not running"):
            await up.snapshot("a", "lab:dead")
        await up.reboot("a")
        assert await sh("a", LOOK) == ["seed", "kept", "fern", "heard", "up"]
        # each at another point, and the one after the other
        for point, *command in (
            ("Growth._end", "reboot", "a"),
            ("ResourceFolder.remove", "up"),
            ("Growth._take_back", "up"),
            ("ResourceFolder.complete", "reboot", "a"),
            ("Growth._release", "up"),
        ):
            killed = [sys.executable, "-c", KILLED, point, *command]
            done = await asyncio.to_thread(subprocess.run, killed, cwd=stage.folder, env=stage.env, capture_output=True)
            assert done.returncode == -signal.SIGKILL, (point, done)
        await up.up()
        assert await sh("a", LOOK) == ["seed", "kept", "fern", "heard", "up"]
        with pytest.raises(ProviderError, match="there is no image moss"):
            await up.rebuild("b", image="moss")
        assert not await up.plan()

        await up.rebuild("a")
        assert await sh("a", LOOK) == ["seed", "fern", "heard", "up"]
        assert not await up.plan()
        (event,) = [entry for entry in up.journal.entries(kinds=["event"]) if entry.summary.startswith("snapshot")]
        assert {"node": "a", **event.detail} == {**made, "summary": "a is image lab:kept"}
    finally:
        await up.down(force=True)
        up.close()
