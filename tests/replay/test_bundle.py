"""Bundles: what goes in, that it is a valid RO-Crate without secrets and the same each time, and that it runs and replays elsewhere."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from wardian.environment.environment import Environment
from wardian.errors import BundleError, WardianError
from wardian.journal import Journal
from wardian.replay.bundle import JOURNAL, METADATA, image_files, origin, packing
from wardian.replay.bundle.unpacking import unpack

from .. import images
from ..engine import BARE, IMAGE, Daemon
from ..stage import Stage, make_stage, require

EXPERIMENT = """
name: study
description: How long a packet takes.
parameters: {delay: 5ms, api_token: planted-one}
nodes: {server: {env: {DB_PASSWORD: planted-two}, image: ./rootfs, files: {data/serve.txt: /root/serve.txt}}}
"""
CITATION = """
cff-version: 1.2.0
message: Cite it.
title: A study of waiting
abstract: How long a packet takes. And why.
license: MIT
keywords: [delay, networks]
authors:
  - {given-names: Ada, family-names: Lovelace, orcid: "https://orcid.org/0000-0002-1825-0097", affiliation: Analytical Engines}
  - {name: The Society}
"""
TOKEN = "ghp_" + "a1B2" * 9


def pack(environment: Environment, output: Path | None, **options: Any) -> packing.Packed:
    return asyncio.run(packing.pack(environment, output, **options))


def notebook(path: Path, *sources: str) -> Path:
    document = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    for number, cell in enumerate(document.cells):
        cell.id = f"cell{number}"
    document.metadata.kernelspec = {"name": "wardian", "display_name": "Python 3 (Wardian)", "language": "python"}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(document, path)
    return path


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def record(environment: Environment, study: Path) -> str:
    """A run as the runner records it, of one cell that printed 42."""
    journal = environment.journal
    with journal.run(
        notebook=str(study), experiment=str(environment.file), experiment_digest="0", parameters={"delay": "5ms"}, provider="local"
    ) as run:
        with journal.cell(source="print(6 * 7)", cell="cell0", notebook=str(study), run=run.id) as cell:
            cell.output(None, "stream", {"name": "stdout", "text": "42\n"})
        journal.fact("machine", {"kernel": "Linux 6", "processors": 2, "memory": 2**30}, run=run.id, node="server")
        journal.fact("packages.dpkg", {"libc6": "2.36"}, run=run.id, node="server")
        journal.fact("written", {str(study.parent / "out" / study.name): "0"}, run=run.id)
    return run.id


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Environment]:
    """A folder with an experiment, a notebook and one recorded run of it."""
    monkeypatch.delenv("WARDIAN_JOURNAL", raising=False)
    folder = tmp_path / "study"
    write(folder, **{"experiment.yaml": EXPERIMENT, "CITATION.cff": CITATION, "LICENSE": "MIT", "data/serve.txt": "served\n"})
    write(folder, **{".gitignore": "out/\n*.log\n/data\n", "notes.log": "x", "helper.py": "print('helped')\n"})
    study = notebook(folder / "study.ipynb", "print(6 * 7)")
    notebook(folder / "out" / "study.ipynb", "print(6 * 7)")
    notebook(folder / "below" / "another.ipynb", "1")
    write(folder, **{"below/experiment.yaml": "name: another\nnodes: [one]\n"})
    write(folder, **{"rootfs/bin/sh": ""})
    environment = Environment(folder / "experiment.yaml")
    record(environment, study)
    yield environment
    environment.close()


def contents(bundle: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def validated(bundle: Path, profile: str, cache: Path) -> list[str]:
    """What the validator of RO-Crates has against a bundle; the context, which is elsewhere, it has from the library `rocrate`."""
    import requests_cache
    import rocrate
    from requests.adapters import HTTPAdapter
    from rocrate_validator import services
    from rocrate_validator.models import Severity
    from urllib3 import HTTPResponse

    class Library(HTTPAdapter):
        def send(self, request: Any, *_: Any, **__: Any) -> Any:
            context = (Path(rocrate.__file__).parent / "data" / "ro-crate.jsonld").read_bytes()
            headers = {"Content-Type": "application/ld+json"}
            raw = HTTPResponse(io.BytesIO(context), headers, 200, preload_content=False, request_url=request.url)
            return self.build_response(request, raw)

    with requests_cache.CachedSession(cache_name=str(cache), backend="sqlite") as session:
        session.mount("https://", Library())
        session.get("https://w3id.org/ro/crate/1.1/context")
    settings = services.ValidationSettings(
        rocrate_uri=str(bundle), profile_identifier=profile, requirement_severity=Severity.REQUIRED, offline=True, cache_path=cache
    )
    return [f"{issue.check.identifier}: {issue.message} {issue.violatingEntity}" for issue in services.validate(settings).get_issues()]


def test_what_goes_in(environment: Environment, tmp_path: Path) -> None:
    """Experiment, notebook, what the experiment needs and runs wrote are in, though ignored; ignored files and our state are not."""
    (environment.folder / "escape").symlink_to("/etc/passwd")
    (environment.folder / "copy.py").symlink_to("helper.py")
    os.mkfifo(environment.folder / "pipe")
    (environment.folder / "zeros").write_bytes(bytes(40_000_000))
    write(environment.folder, **{"back\\slash": "x", "e\u202ecod.py": "x"})
    write(
        environment.folder, **{".env": "A=1", "sub/.gitignore": "*.tmp\n!keep.tmp\n", "sub/a.tmp": "a", "sub/keep.tmp": "k", ".git/x": ""}
    )
    packed = pack(environment, tmp_path / "study.crate.zip")
    found = contents(packed.path)
    assert set(found) == {
        ".gitignore", ".zenodo.json", "below/another.ipynb", "below/experiment.yaml", "CITATION.cff", "LICENSE", "copy.py",
        "data/serve.txt", "experiment.yaml", "helper.py", "out/study.ipynb", "rootfs", "study.ipynb", "sub/.gitignore", "sub/keep.tmp",
        "trovi.json", "zeros", METADATA, JOURNAL, "wardian-bundle/bundle.json", "wardian-bundle/environment.md",
    }  # fmt: skip
    assert found["copy.py"] == b"print('helped')\n"
    assert set(packed.left_out) == {"escape", "pipe", "experiment.lock", "back\\slash", "e\u202ecod.py"}
    assert packed.left_out["escape"] == "a link to what is not taken"
    assert "changed since run" in packed.left_out["experiment.lock"]
    assert [path.name for path in unpack(packed.path, tmp_path / "what is packed unpacks").notebooks] == ["study.ipynb"]
    assert packed.parts()["journal"] == (1, len(found[JOURNAL]))
    assert b"| server | - | Linux 6 |" in found["wardian-bundle/environment.md"]


def test_it_is_a_valid_crate(environment: Environment, tmp_path: Path) -> None:
    """The library of RO-Crates reads it, the validator has nothing against it, also as one of a run, and uploads find their fields."""
    from rocrate.rocrate import ROCrate

    packed = pack(environment, tmp_path / "study.crate.zip")
    assert validated(packed.path, "process-run-crate-0.5", tmp_path / "cache") == []
    crate = ROCrate(str(packed.path))
    assert crate.name == "A study of waiting"
    assert [person["name"] for person in crate.root_dataset["author"]] == ["Ada Lovelace", "The Society"]
    assert crate.mainEntity.id == "study.ipynb"
    (run,) = crate.get_by_type("CreateAction")
    assert run["instrument"].id == "study.ipynb"
    assert run["object"][0].id == "experiment.yaml"
    assert run["result"].id == "out/study.ipynb"
    found = contents(packed.path)
    root = next(item for item in json.loads(found["trovi.json"])["@graph"] if item["@id"] == "./")
    assert (root["name"], root["disambiguatingDescription"], root["keywords"]) == (
        "A study of waiting", "How long a packet takes.", "delay, networks",
    )  # fmt: skip
    assert isinstance(root["author"], list)
    deposit = json.loads(found[".zenodo.json"])
    assert deposit["creators"][0] == {"name": "Lovelace, Ada", "orcid": "0000-0002-1825-0097", "affiliation": "Analytical Engines"}
    assert (deposit["license"], packed.lacking) == ("mit", ())
    for name in ("CITATION.cff", "LICENSE", "study.ipynb"):
        (environment.folder / name).unlink()
    write(environment.folder, **{"a b & ü.txt": "x", "d[0]/q#1?.txt": "y", "100%.md": "z"})
    bare = pack(environment, tmp_path / "bare.crate.zip")
    assert validated(bare.path, "ro-crate-1.1", tmp_path / "cache") == []
    assert len(bare.lacking) == 2
    assert (unpack(bare.path, tmp_path / "there").folder / "d[0]" / "q#1?.txt").read_text() == "y"


def test_the_same_bytes_and_whole_or_not_at_all(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packing again gives the same bytes, whenever files were touched; what fails leaves the earlier bundle, and any other file."""
    monkeypatch.chdir(environment.folder)
    first = pack(environment, None)
    assert first.path == environment.folder / "study.crate.zip"
    before = first.path.read_bytes()
    os.utime(environment.folder / "helper.py", (1, 1))
    assert pack(environment, first.path).path.read_bytes() == before
    write(environment.folder, **{"CITATION.cff": "authors: [{given-names: Ada, orcid: 0000-0002-1825-0098}]"})
    with pytest.raises(BundleError, match=r"CITATION\.cff: authors\[0\]\.orcid: expected an ORCID"):
        pack(environment, first.path)
    write(environment.folder, **{"CITATION.cff": CITATION})
    (environment.folder / "gone").write_bytes(b"x")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            pack(environment, first.path)
    assert first.path.read_bytes() == before
    with pytest.raises(BundleError, match="is no bundle"):
        pack(environment, environment.folder / "helper.py")
    assert not list(environment.folder.glob(".*.part"))


def test_versions_of_a_lock_travel(environment: Environment, tmp_path: Path) -> None:
    """A lock in a bundle has the versions of packages that are called as secrets are, and no secret that somebody wrote into it."""
    packages = "packages:\n  server:\n    dpkg:\n      passwd: '1.0'\n      secret: 'planted-ten'\n"
    text = f"version: 1\nparameters:\n  api_token: 'planted-nine'\n{packages}"
    write(environment.folder, **{"experiment.lock": text})
    found = contents(pack(environment, tmp_path / "x.crate.zip").path)["experiment.lock"].decode()
    assert "passwd: '1.0'" in found
    assert "planted" not in found


def test_an_image_is_whole_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of an image that may not be read is an error that names it, no image without what is in it."""
    (tmp_path / "rootfs" / "root").mkdir(parents=True)
    scandir = os.scandir

    def refusing(path: Any) -> Any:
        # root, who runs the tests, may read everything
        if str(path).endswith("/root"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(BundleError, match="rootfs/root cannot be packed: Permission denied"):
        image_files.pack_root(tmp_path / "rootfs", tmp_path / "image.tar")


def test_no_secret_travels(environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values under secret names, of this process' variables, and keys by their shape are in no file of a bundle; files are named."""
    monkeypatch.setenv("MY_API_KEY", "planted-five")
    pem = "-----BEGIN RSA PRIVATE KEY-----\nplanted-key\n-----END RSA PRIVATE KEY-----"
    notebook(environment.folder / "study.ipynb", f"print('planted-one')\nx = '''{pem}'''", f"# {TOKEN}")
    write(environment.folder, **{"helper.py": "login('planted-two', 'planted-five')\n", "raw.py": f"KEY = '{TOKEN}'\n"})
    packed = pack(environment, tmp_path / "study.crate.zip", as_is=["raw.py"])
    found = contents(packed.path)
    assert set(packed.redacted) == {"experiment.yaml", "helper.py", "study.ipynb"}
    for secret in (b"planted-one", b"planted-two", b"planted-five", b"planted-key", TOKEN.encode()):
        assert [name for name, data in found.items() if secret in data and name != "raw.py"] == [], secret
    assert TOKEN.encode() in found["raw.py"]
    assert nbformat.reads(found["study.ipynb"].decode(), as_version=4).cells[0].id == "cell0"
    Environment(unpack(packed.path, tmp_path / "there").experiment).load()


def test_the_journal_travels(environment: Environment, tmp_path: Path) -> None:
    """The unpacked folder's journal has the run of its own notebook, with outputs and facts; packing that again brings the same run."""
    packed = pack(environment, tmp_path / "study.crate.zip")
    there = unpack(packed.path, tmp_path / "there")
    assert there.runs == packed.runs
    old = environment.journal.show(packed.runs[0])
    with Journal.open(there.folder / ".wardian" / "journal.db") as journal:
        new = journal.show("last", experiment=str(there.experiment))
    assert new.run.detail["notebook"] == str(there.notebooks[0])
    assert [(item.content, item.sha256) for item in new.outputs[new.entries[0].id]] == [
        (item.content, item.sha256) for item in old.outputs[old.entries[0].id]
    ]
    assert {(fact.name, fact.node, fact.sha256) for fact in new.facts} == {(fact.name, fact.node, fact.sha256) for fact in old.facts}
    again = Environment(there.experiment)
    assert contents(pack(again, tmp_path / "again.crate.zip").path)[JOURNAL] == contents(packed.path)[JOURNAL]
    again.close()


def test_what_the_experiment_needs_from_outside(environment: Environment, tmp_path: Path) -> None:
    """A file that the experiment copies from outside of its folder would be missing elsewhere, and is one clear error."""
    write(tmp_path, **{"outside.txt": "x"})
    environment.file.write_text(EXPERIMENT.replace("data/serve.txt:", "../outside.txt:"))
    with pytest.raises(BundleError, match=r"\.\./outside\.txt is not below"):
        pack(environment, tmp_path / "study.crate.zip")
    assert not (tmp_path / "study.crate.zip").exists()


REFUSED = [
    "--upload-pack=touch /tmp/x", "ext::sh -c touch% /tmp/x", "http://example.org/x.git", "ssh://-oProxyCommand=x/y.git", "git://example.org/x",
    "https://", "https://example.org", "file:///x.git@--upload-pack=x", "file:///x.git#-x", "https://example.org/x@a..b", "https://example.org/..",
    "fd::17/foo", "https://example.org/a b.git",
]  # fmt: skip


def test_addresses_of_repositories() -> None:
    """Branches, tags and commits are told from users and hosts; what could be an option or another protocol never gets to git."""
    known = {
        "https://example.org/ada/study.git@v1.2": ("https://example.org/ada/study.git", "v1.2", "study"),
        "https://me@example.org/study#feature/x": ("https://me@example.org/study", "feature/x", "study"),
        "ssh://git@example.org:22/ada/study": ("ssh://git@example.org:22/ada/study", None, "study"),
        "git@example.org:ada/study.git@main": ("git@example.org:ada/study.git", "main", "study"),
        "file:///srv/study.git": ("file:///srv/study.git", None, "study"),
    }
    for text, (url, ref, name) in known.items():
        assert origin.is_elsewhere(text)
        assert origin.parse(text) == origin.Address(url, ref, name)
    for text in REFUSED:
        with pytest.raises(BundleError):
            origin.parse(text)
    with pytest.raises(BundleError) as caught:
        origin.parse("https://me:planted-six@example.org/x@a..b")
    assert "planted-six" not in str(caught.value)


def test_cloning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A branch, tag or commit of a repository becomes a folder; its hooks and submodules are not run, and a failure leaves nothing."""
    require("git")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    source = tmp_path / "study"

    def git(*arguments: str) -> str:
        settings = ["-c", "user.name=x", "-c", "user.email=x", "-c", "protocol.file.allow=always", "-C", str(source)]
        env = {name: value for name, value in os.environ.items() if name != "GIT_DIR"}
        return subprocess.run(
            ["git", *settings, *arguments], check=True, capture_output=True, text=True, timeout=60, env=env
        ).stdout.strip()

    write(source, **{"experiment.yaml": EXPERIMENT})
    notebook(source / "study.ipynb", "1")
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "1"], ["tag", "v1"]):
        git(*command)
    first = git("rev-parse", "HEAD")
    git("submodule", "add", "-q", f"file://{source}", "sub")
    notebook(source / "other.ipynb", "2")
    git("add", ".")
    git("commit", "-q", "-m", "2")
    template = tmp_path / "template" / "hooks"
    write(template, **{"post-checkout": f"#!/bin/sh\ntouch {tmp_path}/ran\n"})
    (template / "post-checkout").chmod(0o755)
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(template.parent))
    for ref in ("v1", first, first[:10]):
        path, _ = origin.fetch(f"file://{source}#{ref}", tmp_path / f"at-{ref}")
        assert path == tmp_path / f"at-{ref}" / "study.ipynb"
    with pytest.raises(BundleError, match=r"2 notebooks with an experiment: other\.ipynb, study\.ipynb"):
        origin.fetch(f"file://{source}", tmp_path / "head")
    assert list((tmp_path / "head" / "sub").iterdir()) == []
    assert not (tmp_path / "ran").exists()
    for wrong in (f"file://{source}@nothing", "file:///nowhere/study.git"):
        with pytest.raises(BundleError):
            origin.fetch(wrong, tmp_path / "wrong")
    assert not [path for path in tmp_path.iterdir() if path.name in ("wrong", ".wrong.part")]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WardianError, match="git is not installed"):
        origin.clone(f"file://{source}", tmp_path / "without")


def image(engine: Daemon, name: str) -> str | None:
    found = engine.ask("GET", f"/images/{name}/json", fails=True)
    return found["Id"] if found else None


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_images_go_along(environment: Environment, tmp_path: Path, stage: Stage, engine: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its images a bundle brings them to an Engine that lacks them, and leaves there what has one of their names."""
    monkeypatch.setenv("DOCKER_HOST", engine.address)
    number = image(engine, BARE)
    assert number
    for tag in ("base", "wanted"):
        engine.ask("POST", f"/images/{BARE}/tag", repo="wardian-test", tag=tag)
    environment.file.write_text(
        "name: study\nprovider: docker\nnodes: {one: {image: 'wardian-test:wanted'}, two: {image: 'wardian-test:base'}}\n"
    )
    with environment.journal.run(
        notebook=str(environment.folder / "study.ipynb"), experiment=str(environment.file), experiment_digest="0", provider="docker"
    ) as run:
        for node, tag in (("one", "wanted"), ("two", "base")):
            environment.journal.fact("image", {"name": f"wardian-test:{tag}", "digest": number}, run=run.id, node=node)
    packed = pack(environment, tmp_path / "images.crate.zip", runs=[run.id], with_images=True)
    assert packed.parts()["images"][0] == 1
    table = json.loads(contents(packed.path)["wardian-bundle/bundle.json"])["images"]["docker"]
    assert table["nodes"]["one"] == {"name": "wardian-test:wanted", "digest": number}
    assert table["images"] == {"wardian-test:base": number, "wardian-test:wanted": number}
    other = image(engine, IMAGE)
    engine.ask("DELETE", "/images/wardian-test:wanted", fails=True)
    engine.ask("POST", f"/images/{IMAGE}/tag", repo="wardian-test", tag="base")
    there = stage.json("unpack", str(packed.path), str(tmp_path / "there"), "--load-images", "--json", env={"DOCKER_HOST": engine.address})
    assert there["images"] == ["wardian-test:wanted"]
    assert (image(engine, "wardian-test:wanted"), image(engine, "wardian-test:base")) == (number, other)
    again = stage.json("unpack", str(packed.path), str(tmp_path / "there"), "--load-images", "--json", env={"DOCKER_HOST": engine.address})
    assert again["images"] == []
    for tag in ("base", "wanted"):
        engine.ask("DELETE", f"/images/wardian-test:{tag}")
    environment.journal.fact("image", {"name": "gone:1", "digest": "sha256:" + "0" * 64}, run=run.id, node="two")
    with pytest.raises(WardianError, match="gone:1 of a recorded run is not at the Engine any more"):
        pack(environment, tmp_path / "gone.crate.zip", runs=[run.id], with_images=True)
    assert not list(tmp_path.glob("*gone*"))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A folder for experiments on real nodes."""
    stage = make_stage(tmp_path_factory.mktemp("bundles"))
    yield stage
    stage.close()


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_runs_and_replays_elsewhere(stage: Stage, tmp_path: Path) -> None:
    """A bundle runs from its file alone, also on an image that was a folder; one of that run replays elsewhere, as identical."""
    nodes = "{one: {files: {told.txt: /root/told.txt}}, two: {image: ./debian}}"
    stage.write(f"name: NAME\nnodes: {nodes}\ncollect: [{{on: one, path: /root/out.txt}}]\n")
    write(stage.folder, **{"told.txt": "6 7\n"})
    shutil.copytree(images.without_python(bash=False), stage.folder / "debian", symlinks=True)
    write(stage.folder, **{"debian/srv/with space": "in the image\n"})
    (stage.folder / "debian" / "srv" / "link").symlink_to("/srv/with space")
    (stage.folder / "debian" / "srv" / "with space").chmod(0o4750)
    notebook(
        stage.folder / "study.ipynb",
        "%%on one --lang bash\nread a b < /root/told.txt; echo $((a * b)) | tee /root/out.txt",
        "%%on two --lang bash\ncat /srv/link; stat -c '%a %u %n' /srv/*",
    )
    assert "no run that went well is recorded" in stage.run("pack", "-o", "plan.crate.zip").stdout
    shutil.move(stage.folder / "plan.crate.zip", tmp_path)
    run = stage.json("run", "plan.crate.zip", "--into", "there", "--json", cwd=tmp_path, timeout=200)["run"]
    said = stage.run("pack", "-o", "../done.crate.zip", cwd=tmp_path / "there").stdout
    assert "with 1 recorded run" in said
    (collected,) = [name for name in contents(tmp_path / "done.crate.zip") if "/collected/" in name]
    assert contents(tmp_path / "done.crate.zip")[collected] == b"42\n"
    unpacked = stage.json("unpack", "done.crate.zip", "elsewhere", "--json", cwd=tmp_path)
    assert (unpacked["runs"], unpacked["notebooks"]) == ([run], [str(tmp_path / "elsewhere" / "study.ipynb")])
    ran = nbformat.read(tmp_path / "there" / "out" / "study.ipynb", as_version=4)
    told = "".join(output.text for output in ran.cells[1].outputs)
    assert "in the image\n" in told
    assert "4750 0 /srv/with space" in told
    replayed = stage.json("replay", "elsewhere/study.ipynb", "--json", cwd=tmp_path, timeout=200)
    assert (replayed["verdict"], replayed["recorded"][0]["id"]) == ("identical", run)
