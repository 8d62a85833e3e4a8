"""What goes wrong is said in one clear message with the right exit code, and leaves nothing half done."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from ..stage import BIN, WARDIAN, Stage, require

pytestmark = pytest.mark.root

SMALL = "name: NAME\nnodes: [one]\n"


def test_no_experiment_file(stage: Stage) -> None:
    """A folder without an experiment is not up, with the way out; a file that was named and is missing is a wrong file."""
    assert "wardian init" in stage.error("up", code=4)
    said = stage.error("up", "-f", "nowhere.yaml", code=3)
    assert "nowhere.yaml" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "junk", [b"\x00\xff\xfe\x80" * 300, b"name: \xff\xfe", b"\x7fELF\x02\x01", b"", b"\xef\xbb\xbf", b"[[[[", b"&a [*a, *a"]
)
def test_junk_as_experiment_file(stage: Stage, junk: bytes) -> None:
    """Bytes that are no experiment are one error that names the file, for every command that reads it."""
    (stage.folder / "experiment.yaml").write_bytes(junk)
    for command in ("plan", "up"):
        said = stage.error(command, code=3)
        assert "experiment.yaml" in said
        assert len(said.splitlines()) <= 2, said
    assert stage.environments() == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: x\nprovider: locl\nnodes: [one]\n", ["2:", "locl", "did you mean 'local'"]),
        ("name: x\nnodes:\n  one: {cuont: 3}\n", [":3:", "cuont", "did you mean 'count'"]),
        ("name: x\nnodes:\n  one: {networks: [ether]}\nnetworks: [ethr]\n", [":3:", "ether", "did you mean 'ethr'"]),
        ("name: x\nnodes: [a]\nnetworks: {a: {subnet: 10.1.0.0/16}, b: {subnet: 10.1.2.0/24}}\n", [":3:", "10.1.2.0/24", "10.1.0.0/16"]),
        ("name: x\nnodes: [a]\nservices: {web: {on: b, command: 'true'}}\n", [":3:", "services.web.on"]),
        ("name: x\nnodes: {a: {files: {none.txt: /tmp/x}}}\n", ["none.txt", "nodes.a.files"]),
        ("name: x\nnodes: {a: {memory: lots}}\n", [":2:", "nodes.a.memory", "lots"]),
        ("name: x\nnodes: [a]\nsettings: {satte: /tmp}\n", [":3:", "satte", "did you mean 'state'"]),
    ],
)
def test_wrong_file_says_where_and_what(stage: Stage, text: str, words: list[str]) -> None:
    """A mistake in the file is told with line, field and what was probably meant, before anything is made."""
    stage.write(text)
    said = stage.error("up", code=3)
    assert [word for word in words if word not in said] == [], said
    assert stage.environments() == []


def test_all_errors_at_once(stage: Stage) -> None:
    """Three mistakes are three errors in one go."""
    stage.write("name: x\nnodes:\n  a: {cpus: none}\n  b: {memry: 3}\nlinks: {l: {between: [p, q]}}\n")
    said = stage.error("plan", code=3)
    assert len([line for line in said.splitlines() if line.startswith("error: ")]) >= 3, said


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["exec", "one", "true"], ["shell", "one"], ["cp", "one:/etc/hosts", "x"], ["cp", "experiment.yaml", "one:/root/"]],
)
def test_not_up(stage: Stage, arguments: list[str]) -> None:
    """Commands that need the environment say that it is not up and how to grow it; nothing is grown by surprise."""
    stage.write(SMALL)
    said = stage.error(*arguments, code=4)
    assert "not up" in said
    assert "wardian up" in said
    assert stage.environments() == []


def test_strict_refuses_stand_ins(stage: Stage) -> None:
    """`--strict` turns what cannot be honoured into an error and makes nothing, or has nothing to refuse."""
    stage.write("name: NAME\nnetworks: {lan: {delay: 5ms}}\nnodes: [one, two]\n")
    if stage.json("plan", "--json")["caveats"]:
        assert "delay" in stage.error("up", "--strict", code=3)
        assert stage.environments() == []
    else:
        stage.run("plan", "--strict")


def test_another_user(stage: Stage, tmp_path: Path) -> None:
    """A user who may not look into what he would need is told of it in one message."""
    require("setpriv")
    # where a stranger may read it: the test's own folder is closed to others
    folder = stage.state / "open"
    folder.mkdir()
    (folder / "experiment.yaml").write_text("name: x\nnodes: [one]\n")
    for path in (stage.state, folder):
        path.chmod(0o755)
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    if subprocess.run([*nobody, WARDIAN, "--version"], capture_output=True, cwd=folder).returncode:
        pytest.skip("the installation is closed to other users")
    for command in ("plan", "up"):
        done = subprocess.run(
            [*nobody, WARDIAN, command], env=stage.env | {"HOME": "/nonexistent"}, cwd=folder, capture_output=True, text=True
        )
        assert done.returncode in (1, 6), done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert re.fullmatch(r"error: \S+: Permission denied\n", done.stderr), done.stderr


def read_only(folder: Path) -> list[str]:
    """A command line that runs what follows where `folder` cannot be written."""
    return ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"', str(folder)]


def said_by(stage: Stage, argv: list[str], cwd: Path) -> str:
    done = subprocess.run(argv, env=stage.env, cwd=cwd, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in range(1, 10), f"{done.returncode}: {done.stderr}"
    return done.stderr


def test_state_folder_that_cannot_be_written(stage: Stage) -> None:
    """A state folder that is read-only is one clear error naming it."""
    require("unshare")
    stage.write(SMALL)
    said = said_by(stage, [*read_only(stage.state), WARDIAN, "up"], stage.folder)
    assert "ead-only" in said
    assert str(stage.state) in said


def test_experiment_folder_that_cannot_be_written(stage: Stage) -> None:
    """An experiment in a read-only folder cannot keep a journal, and that is what is said; nothing is made."""
    require("unshare")
    stage.write(SMALL)
    said = said_by(stage, [*read_only(stage.folder), WARDIAN, "up"], stage.folder)
    assert ".wardian" in said
    stage.assert_nothing_left()


@pytest.mark.parametrize("size", ["16k", "64k", "160k", "280k"])
def test_full_disk(stage: Stage, size: str) -> None:
    """`up` on a disk that is full, at whichever step, is one error that says so; after room was made, it goes up and comes down."""
    require("mount")
    (stage.folder / "big.bin").write_bytes(os.urandom(300_000))
    stage.write(
        "name: NAME\nnodes: {one: {files: {big.bin: /srv/big.bin}}, two: {}, three: {}}\nservices: {s: {on: two, command: sleep 1d}}\n"
    )
    disk = stage.state
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], check=True)
    try:
        done = subprocess.run([WARDIAN, "up"], env=stage.env, cwd=stage.folder, capture_output=True, text=True, timeout=60)
        assert done.returncode in range(1, 10), done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        assert "No space left" in done.stderr, done.stderr
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        stage.run("up")
        stage.run("plan", "--exit-code", code=0)
        stage.run("down")
        stage.assert_nothing_left()
    finally:
        for identity in stage.environments():
            stage.run("down", identity, "--force", "--no-collect")
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_full_disk_of_the_experiment(stage: Stage) -> None:
    """A journal that cannot be written because the disk is full is one error that says so."""
    text = stage.write(SMALL).read_text()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(stage.folder)], check=True)
    try:
        stage.write(text)
        said = said_by(stage, [WARDIAN, "up"], stage.folder)
        assert "full" in said or "No space left" in said, said
    finally:
        subprocess.run(["umount", "-l", str(stage.folder)], check=True)


def test_missing_tool(stage: Stage, tmp_path: Path) -> None:
    """A node that wants internet where nft is not installed: one error that names nft and how it is had."""
    stage.write("name: NAME\nnodes: {one: {internet: yes}}\n")
    tools = tmp_path / "tools"
    tools.mkdir()
    for folder in ("/usr/sbin", "/usr/bin"):
        for program in Path(folder).iterdir():
            if program.name not in ("nft", "iptables") and not (tools / program.name).exists():
                (tools / program.name).symlink_to(program)
    said = stage.error("up", code=6, env={"PATH": f"{BIN}:{tools}"})
    assert "nft" in said.splitlines()[-2] + said.splitlines()[-1]
    assert "apt install nftables" in said
    stage.run("down")
    stage.assert_nothing_left()


def test_journal_that_is_no_database(stage: Stage) -> None:
    """A journal file that is something else is an error that names it."""
    stage.write(SMALL)
    (stage.folder / ".wardian").mkdir()
    (stage.folder / ".wardian" / "journal.db").write_bytes(b"not a database" * 100)
    said = stage.error("log", code=8)
    assert "journal.db" in said


def test_output_that_nobody_reads(stage: Stage) -> None:
    """A pipe that is closed early ends the command without a traceback."""
    command = f"{WARDIAN} schema | head -c 10"
    done = subprocess.run(["bash", "-c", command], env=stage.env, cwd=stage.folder, capture_output=True, text=True)
    assert done.stdout
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_shell_wants_one_node(stage: Stage) -> None:
    """A shell on several nodes is an error that shows how to name one."""
    stage.write("name: NAME\nnodes: {n: {count: 2}}\n")
    stage.run("up")
    assert "n[0]" in stage.error("shell", "n", code=3)


def test_unknown_provider_option(stage: Stage) -> None:
    """Another provider that does not exist is refused with the names of those that do."""
    stage.write(SMALL)
    stage.run("up")
    said = stage.error("up", "--provider", "lcal", code=3)
    assert "local" in said


def test_settings_on_the_command_line(stage: Stage) -> None:
    """Settings given by --set reach the provider that is chosen, are checked by it, and refused by their names."""
    stage.write(SMALL)
    said = stage.error("plan", "--provider", "openstack", "--set", "patience=soon", "--set", "colour=red", code=3)
    assert "patience: " in said
    assert "colour: " in said
    assert "nowhere" in stage.error("plan", "--provider", "openstack", "--set", "cloud=nowhere", code=6)
    assert "SETTING=VALUE" in stage.error("plan", "--set", "cloud", code=2)
    assert "no YAML" in stage.error("plan", "--set", "admit=[", code=2)
