"""`wardian image`: from an archive to a node that is made from it, and away again."""

from __future__ import annotations

from pathlib import Path

import pytest

from .. import images
from ..providers import archives
from ..stage import Stage

pytestmark = pytest.mark.root

TEXT = """
name: NAME
nodes:
  one: {image: "lab:1"}
  two: {image: ./lab.tar}
"""
PACKAGES = b"P:moss\nV:1.2-r0\n\nP:fern\nV:3.4-r5\n"


def test_an_image_from_its_archive_to_its_end(stage: Stage, tmp_path: Path) -> None:
    """An archive is added once and named; nodes are made from it by name and path, and the lock has its digest and packages; while they
    are up it stays, and after them `gc` takes it."""
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    stage.env |= cache
    base = archives.packed(images.without_python(bash=False))
    top = archives.tar([archives.entry("lib/apk/db/installed", PACKAGES)])
    about = archives.config([base, top])
    archives.saved(stage.folder / "lab.tar", [base, top], about, "fern:2")
    added = stage.json("image", "add", "lab.tar", "--name", "lab:1", "--json")
    assert (added["digest"], added["names"], added["users"]) == (archives.digest(about), ["fern:2", "lab:1"], [])
    stage.write(TEXT)
    stage.run("up")
    assert stage.run("exec", "all", "--", "cat", "/lib/apk/db/installed").stdout.count("moss") == 2
    listed = stage.run("image", "ls").stdout.splitlines()
    assert len(listed) == 2
    assert "fern:2, lab:1" in listed[1]
    assert listed[1].endswith("2 nodes")
    stage.run("lock")
    lock = (stage.folder / "experiment.lock").read_text()
    assert archives.digest(about) in lock
    assert "fern: 3.4-r5" in lock
    assert "is used by one of" in stage.error("image", "rm", added["digest"][7:19], code=6)
    assert stage.run("image", "gc", "--all").stdout == "nothing to remove\n"
    stage.run("down")
    completed = {"_WARDIAN_COMPLETE": "bash_complete", "COMP_WORDS": "wardian image rm f", "COMP_CWORD": "3"}
    assert stage.run(env=completed).stdout == "plain,fern:2\n"
    assert stage.run("image", "gc").stdout == "nothing to remove\n"
    assert stage.run("image", "gc", "--all", "--dry-run").stdout.startswith("would remove fern:2, lab:1")
    assert stage.run("image", "rm", "fern:2").stdout == "fern:2 names it no more; lab:1 still does\n"
    assert stage.run("image", "rm", "lab:1").stdout == "removed lab:1\n"
    assert "There are none" in stage.error("image", "rm", "lab:1", code=6)
    stage.write("no archive", "bad.tar")
    assert "bad.tar cannot be unpacked" in stage.error("image", "add", "bad.tar", code=6)
