"""Experiments are fetched from real servers on loopback: repositories over https and ssh, bundles over https."""

from __future__ import annotations

import getpass
import os
import subprocess
from pathlib import Path

import pytest

from wardian.errors import BundleError
from wardian.replay.bundle import origin

from ..stage import require
from . import servers
from .test_bundle import EXPERIMENT, contents, environment, notebook, pack, write

__all__ = ["environment"]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a bare repository of two commits, the first of them v1; git reads no settings of the user's."""
    for program in ("git", "openssl"):
        require(program)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    work, bare = tmp_path / "work", tmp_path / "served" / "study.git"

    def git(*arguments: str) -> str:
        settings = ["-c", "user.name=x", "-c", "user.email=x", "-C", str(work)]
        return subprocess.run(["git", *settings, *arguments], check=True, capture_output=True, text=True, timeout=60).stdout.strip()

    write(work, **{"experiment.yaml": EXPERIMENT, "told": "first\n"})
    notebook(work / "study.ipynb", "1")
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "1"], ["tag", "v1"]):
        git(*command)
    write(work, told="second\n")
    git("commit", "-q", "-a", "-m", "2")
    bare.parent.mkdir()
    git("clone", "-q", "--bare", str(work), str(bare))
    return bare


def told(address: str, into: Path) -> str:
    """What the file says of the experiment that an address is of."""
    path, _ = origin.fetch(address, into)
    assert path == into / "study.ipynb"
    return (into / "told").read_text()


def first_commit(repository: Path) -> str:
    command = ["git", "-C", str(repository), "rev-parse", "v1"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def test_over_https(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A branch, a tag and a commit come from a git server over https, if its certificate is vouched for; a failure leaves nothing."""
    with servers.web(repository.parent, tmp_path) as web:
        address = f"{web.url}/git/study.git"
        with pytest.raises(BundleError, match="certificate"):
            origin.fetch(address, tmp_path / "unknown")
        monkeypatch.setenv("GIT_SSL_CAINFO", str(web.authority))
        assert told(address, tmp_path / "head") == "second\n"
        for number, ref in enumerate(("@v1", f"#{first_commit(repository)}", f"@{first_commit(repository)[:9]}")):
            assert told(address + ref, tmp_path / f"at{number}") == "first\n"
        for wrong in ("@nothing", "/../other.git"):
            with pytest.raises(BundleError):
                origin.fetch(address + wrong, tmp_path / "wrong")
        with pytest.raises(BundleError):
            # a server may not lead git to another protocol
            origin.fetch(f"{web.url}/away/file://{repository}", tmp_path / "wrong")
    assert not [path for path in tmp_path.iterdir() if "wrong" in path.name or "unknown" in path.name]


@pytest.mark.root
def test_over_ssh(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository comes from an OpenSSH server, by both kinds of address, as the user's own ssh settings say; its host key is checked."""
    require("/usr/sbin/sshd")
    user = getpass.getuser()
    with servers.ssh(tmp_path) as (port, command):
        monkeypatch.setenv("GIT_SSH_COMMAND", command)
        address = f"ssh://{user}@127.0.0.1:{port}{repository}"
        assert told(f"{address}@v1", tmp_path / "tag") == "first\n"
        monkeypatch.setenv("GIT_SSH_COMMAND", f"{command} -p {port}")
        from_home = os.path.relpath(repository, Path.home())
        assert told(f"{user}@127.0.0.1:{from_home}", tmp_path / "branch") == "second\n"
        (tmp_path / "known").write_text("")
        with pytest.raises(BundleError, match=r"[Hh]ost key"):
            origin.fetch(address, tmp_path / "wrong")


def test_a_bundle_over_https(environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle is fetched and unpacked by its address, under its name; what is cut short, untrusted or leads elsewhere leaves nothing."""
    require("openssl")
    served = tmp_path / "served"
    served.mkdir()
    packed = pack(environment, served / "study one.crate.zip").path
    (served / "half.zip").write_bytes(packed.read_bytes()[:-1000])
    monkeypatch.chdir(tmp_path)
    with servers.web(served, tmp_path) as web:
        address = f"{web.url}/study%20one.crate.zip"
        with pytest.raises(BundleError, match="certificate"):
            origin.bring(address)
        monkeypatch.setenv("SSL_CERT_FILE", str(web.authority))
        path, unpacked = origin.fetch(f"{web.url}/away/{address}")
        assert unpacked is not None
        assert (path, len(unpacked.runs)) == (tmp_path / "study one" / "study.ipynb", 1)
        assert all((path.parent / name).is_file() for name in contents(packed))
        before = {item.name for item in tmp_path.iterdir()}
        wrong = ["half.zip", "none.zip", "away/file:///etc/x.zip", f"away/http{web.url[5:]}/half.zip", ".zip", "%2e%2e%2f.zip"]
        for name in wrong:
            with pytest.raises(BundleError):
                origin.bring(f"{web.url}/{name}")
        for address in ("https://127.0.0.1:port/x.zip", "https://127.0.0.1/a b.zip", "https://[::1/x.zip"):
            with pytest.raises(BundleError):
                origin.fetch(address)
        with pytest.raises(BundleError, match="without a password") as caught:
            origin.bring("https://me:planted-six@example.org/x.zip")
        assert "planted-six" not in str(caught.value)
    assert {item.name for item in tmp_path.iterdir()} == before
