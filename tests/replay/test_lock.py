"""Locks: what is written is the same for the same, every difference is named with what to do, and `up --locked` makes nothing else."""

from __future__ import annotations

import asyncio
import copy
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from wardian.environment.environment import Environment
from wardian.errors import LockError
from wardian.replay import lock

from .. import images
from ..engine import BARE, IMAGE, Daemon
from ..providers import archives
from ..stage import Stage, make_stage, require

EXPERIMENT = """
name: study
parameters: {clients: 2, delay: 5ms, api_token: planted-one}
networks: {lan: {delay: "${delay}"}}
nodes:
  server: {networks: [lan], image: "study:1", files: {serve.txt: /root/serve.txt}}
  client: {networks: [lan], count: "${clients}"}
"""


def digest(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Environment]:
    """An experiment in a repository of git's, with a run recorded as the runner does."""
    require("git")
    monkeypatch.delenv("WARDIAN_JOURNAL", raising=False)
    (tmp_path / "experiment.yaml").write_text(EXPERIMENT)
    (tmp_path / "serve.txt").write_text("served\n")
    for command in (["init", "-q"], ["add", "serve.txt"], ["-c", "user.name=x", "-c", "user.email=x", "commit", "-q", "-m", "x"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, timeout=60)
    environment = Environment(tmp_path / "experiment.yaml")
    journal, file = environment.journal, str(environment.file)
    parameters = {"clients": 2, "delay": "20ms", "api_token": "planted-one", "of_the_notebook": 1}
    with journal.run(notebook="x", experiment=file, experiment_digest=digest(EXPERIMENT), parameters=parameters, provider="docker") as run:
        journal.fact("read", {"serve.txt": digest("served\n")}, run=run.id)
        journal.fact(
            "image", {"name": "study:1", "digest": "sha256:1a", "registry": "example.org/study@sha256:2b"}, run=run.id, node="server"
        )
        for node in (None, "server", "client[0]", "client[1]"):
            journal.fact("python", {"version": "3.11.2", "executable": "/usr/bin/python3"}, run=run.id, node=node)
            journal.fact("packages.pip", {"numpy": "1.26.0"}, run=run.id, node=node)
            journal.fact("packages.dpkg", {"libc6": "2.36", "zlib1g": "1:1.2.13"}, run=run.id, node=node)
    yield environment
    environment.close()


def resolve(environment: Environment) -> Any:
    return asyncio.run(lock.from_record(environment, environment.journal.show("last")))


def test_the_text(environment: Environment) -> None:
    """A lock has a version, parameters without secrets, files with their commits, images, and packages once for nodes that are alike."""
    text = lock.dumps(resolve(environment))
    assert text == lock.dumps(resolve(environment))
    assert text.startswith("# What this experiment was resolved to.")
    found = yaml.safe_load(text)
    assert list(found) == ["version", "provider", "parameters", "experiment", "files", "images", "packages"]
    assert (found["version"], found["provider"]) == (1, "docker")
    assert found["parameters"] == {"clients": 2, "delay": "20ms", "api_token": "[redacted]"}
    assert set(found["experiment"]) == {"networks.lan", "nodes.server", "nodes.client"}
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=environment.folder, capture_output=True, text=True, timeout=60).stdout.strip()
    assert found["files"] == {"serve.txt": {"sha256": digest("served\n"), "commit": head}}
    assert found["images"]["server"]["digest"] == "sha256:1a"
    assert set(found["packages"]) == {"client, server", "here"}
    assert found["packages"]["client, server"]["dpkg"] == {"libc6": "2.36", "zlib1g": "1:1.2.13"}
    assert found["packages"]["here"] == {"pip": {"numpy": "1.26.0"}, "python": "3.11.2"}
    assert "planted" not in text
    path = environment.folder / lock.FILE
    lock.write(path, found)
    assert lock.differences(lock.load(path), resolve(environment)) == []


def test_every_difference_is_named(environment: Environment) -> None:
    """Parameters, parts of the file, files, images and packages are each named with what was locked, what is here, and what to do."""
    locked = resolve(environment)
    now = copy.deepcopy(locked)
    now["provider"] = "local"
    now["parameters"]["delay"] = "40ms"
    now["experiment"] |= {"networks.lan": "0", "links.wan": "1"}
    now["files"]["serve.txt"]["sha256"] = "0" * 64
    now["images"]["server"]["digest"] = "sha256:9f"
    other = copy.deepcopy(now["packages"].pop("client, server"))
    now["packages"] |= {"client[0], server": copy.deepcopy(other), "client[1]": other}
    other["pip"] = {"numpy": "2.0.0", "pandas": "2.2"}
    del other["dpkg"]["zlib1g"]
    said = [str(item) for item in lock.differences(locked, now)]
    commit = locked["files"]["serve.txt"]["commit"][:12]
    image = "docker pull example.org/study@sha256:2b && docker tag example.org/study@sha256:2b study:1"
    assert said == [
        "provider: locked docker, here local; grow it with --provider docker",
        "parameter delay: locked 20ms, here 40ms; give -p delay=20ms",
        f"networks.lan: locked as {locked['experiment']['networks.lan']}, here as 0; undo the edit of networks.lan in the experiment file",
        "links.wan: locked without, here as 1; take out links.wan",
        f"file serve.txt: locked {digest('served' + chr(10))[:12]}, here 000000000000; bring it back: git checkout {commit} -- serve.txt",
        f"image of server: locked sha256:1a, here sha256:9f; {image}",
        "dpkg zlib1g of client[1]: locked 1:1.2.13, here without; apt-get install zlib1g=1:1.2.13",
        "pip numpy of client[1]: locked 1.26.0, here 2.0.0; pip install numpy==1.26.0",
        "pip pandas of client[1]: locked without, here 2.2; remove it",
    ]
    assert len(str(lock.refusal(Path("experiment.lock"), lock.differences(locked, now))).splitlines()) == 1 + len(said) + 1


def test_nothing_to_lock(environment: Environment) -> None:
    """Where nothing is up, what is locked is the last run that went well; without one it is said what to do."""
    assert asyncio.run(lock.resolve(environment)) == resolve(environment)
    environment.journal.remove_runs([run.id for run in environment.journal.runs()])
    with pytest.raises(LockError, match="nothing is resolved yet"):
        asyncio.run(lock.resolve(environment))


def test_what_changed_since_the_run(environment: Environment) -> None:
    """A run's packages are not written beside a file that it did not run with."""
    (environment.folder / "serve.txt").write_text("other\n")
    environment.file.write_text(EXPERIMENT + "# more\n")
    with pytest.raises(LockError, match=r"experiment\.yaml, serve\.txt changed since run"):
        resolve(environment)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("version: 1\n<<<<<<< HEAD\nprovider: local\n", "is damaged: .*line 2"),
        ("- 1\n", "is no lock"),
        ("version: 2\n", "is of version 2.*upgrade"),
        ("version: 1\nfiles: [a]\n", "files: expected a mapping"),
        ("version: 1\npackages: {server: 3}\n", r"packages\.server: expected a mapping"),
        ("version: 1\nfiles: {a: {sha256: [1]}}\n", r"files\.a\.sha256: expected text"),
        ("&a [*a, *a]\n", "is no lock"),
    ],
)
def test_locks_that_are_none(tmp_path: Path, text: str, why: str) -> None:
    """A file that is damaged, in conflict, of another version or no lock is one clear error that names it."""
    path = tmp_path / "experiment.lock"
    with pytest.raises(LockError, match="wardian lock"):
        lock.load(path)
    path.write_text(text)
    with pytest.raises(LockError) as caught:
        lock.load(path)
    assert str(path) in str(caught.value)
    assert re.search(why, str(caught.value).replace("\n", " ")), caught.value


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A folder for experiments on real nodes."""
    stage = make_stage(tmp_path_factory.mktemp("locks"))
    yield stage
    stage.close()


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_up_locked(stage: Stage) -> None:
    """What is locked grows with its parameters; a parameter, an edit or a package that drifted is refused, and leaves nothing up."""
    stage.write("name: NAME\nparameters: {memory: 64MiB}\nnodes: {one: {memory: '${memory}'}}\n")
    stage.run("up", "-p", "memory=96MiB")
    assert "1 parameter, packages of" in stage.run("lock").stdout
    path = stage.folder / "experiment.lock"
    before = path.read_text()
    stage.run("down")
    stage.run("up", "--locked")
    assert stage.json("lock", "--check", "--json") == {"locked": True, "differences": []}
    assert "memory: 96MiB" in before
    stage.run("down")
    stage.edit("nodes: {one:", "nodes: {two: {}, one:")
    said = stage.error("up", "--locked", "-p", "memory=64MiB", code=13)
    assert "parameter memory: locked 96MiB, here 64MiB; give -p memory=96MiB" in said
    assert "nodes.two: locked without" in said
    stage.edit("nodes: {two: {}, one:", "nodes: {one:")
    name, version = re.search(r"^    dpkg:\n      (\S+): (\S+)$", before, re.M).groups()  # type: ignore[union-attr]
    path.write_text(before.replace(f"      {name}: {version}\n", f"      {name}: 1.0\n"))
    said = stage.error("up", "--locked", code=13)
    assert re.search(rf"dpkg {re.escape(name)} of \S+: locked 1\.0, here \S+; apt-get install {re.escape(name)}=1\.0", said), said
    stage.assert_nothing_left()


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(240)
def test_locked_images_of_an_engine(stage: Stage, engine: Daemon) -> None:
    """A container is made from the locked digest although its image's name means another by now, stays so, and is not begun without it."""
    stage.env |= {"DOCKER_HOST": engine.address}
    name, folder = f"wardian-test:{stage.name}", stage.folder

    def tag(image: str) -> str:
        engine.ask("POST", f"/images/{image}/tag", repo="wardian-test", tag=stage.name)
        return str(engine.ask("GET", f"/images/{name}/json")["Id"])

    def made_from() -> str:
        return stage.run("exec", "one", "--", "sh", "-c", "command -v bash || echo none").stdout.split()[-1]

    bare = tag(BARE)
    stage.write(f"name: NAME\nprovider: docker\nnodes: {{one: {{image: '{name}'}}}}\n")
    stage.run("up")
    stage.run("lock")
    stage.run("down")
    assert tag(IMAGE) != bare
    stage.run("up")
    assert made_from() != "none"
    assert f"{name}" in stage.run("up", "--locked", "-y").stdout, "a node of another image is made anew"
    assert made_from() == "none"
    assert "Nothing to do" in stage.run("up", "--locked").stdout
    assert "Nothing to do" in stage.run("up").stdout, "what is pinned is not brought to what the name means by now"
    assert stage.json("lock", "--check", "--json")["locked"]
    stage.run("down")

    path = folder / "experiment.lock"
    absent = "sha256:" + "0" * 64
    path.write_text(path.read_text().replace(bare, absent))
    said = stage.error("up", "--locked", code=13)
    assert f"image of one: locked {absent}, here without; `docker load` it" in said
    assert "create" not in said, "nothing was begun"
    engine.ask("DELETE", f"/images/{name}")


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_locked_images_of_the_store(stage: Stage) -> None:
    """A local node is made from the locked digest, out of its archive where the store lacks it, never from another one."""
    stage.env |= {"XDG_CACHE_HOME": str(stage.state / "cache")}
    root = archives.packed(images.without_python(bash=False))
    archive = stage.folder / "root.tar"

    def write(word: str) -> None:
        layers = [root, archives.tar([archives.entry("srv/word", word.encode())])]
        archives.saved(archive, layers, archives.config(layers))

    write("fern")
    stage.write("name: NAME\nnodes: {one: {image: ./root.tar}}\n")
    stage.run("up")
    stage.run("lock")
    stage.run("down")
    write("moss")
    stage.run("up", "--locked")
    assert stage.run("exec", "one", "--", "cat", "/srv/word").stdout.endswith("fern"), "the store has it, whatever the archive is now"
    stage.run("down")

    stage.run("image", "gc", "--all")
    said = stage.error("up", "--locked", code=13)
    assert re.search(r"image of one: locked sha256:\w+, here without; \./root\.tar is sha256:\w+ now", said), said
    stage.assert_nothing_left()
    write("fern")
    stage.run("up", "--locked")
    stage.run("down")
