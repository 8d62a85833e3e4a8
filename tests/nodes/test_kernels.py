"""Kernels on nodes: what a Python kernel needs, found here and put there; kernels that a kernelspec describes; the agent's own ZeroMQ."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from wardian.errors import AgentError
from wardian.nodes import boot, kernels, wheels
from wardian.nodes.agent.python import PythonKernel
from wardian.nodes.kernels import UNPACK, start_kernel
from wardian.nodes.link import AgentLink
from wardian.nodes.wheels import Interpreter, Unavailable, Wheel

from .conftest import HostChannel, Kernel

REPORT = {
    "python": "/usr/bin/python3",
    "version": [3, 9],
    "implementation": "CPython",
    "soabi": "cpython-39-x86_64-linux-gnu",
    "machine": "x86_64",
    "libc": "glibc 2.31",
    "installed": {"six": "1.16.0"},
}


@asynccontextmanager
async def agent_of(directory: str, **env: str) -> AsyncIterator[tuple[AgentLink, HostChannel]]:
    channel = HostChannel(directory, **env)
    link = await AgentLink.open(channel, "host")
    try:
        yield link, channel
    finally:
        await link.close()


async def started(link: AgentLink, channel: HostChannel, name: str, language: str, notes: list[str] | None = None) -> Kernel:
    kernel = Kernel(link, name)
    await start_kernel(link, channel, "host", name, language, (notes if notes is not None else []).append)
    await link.request("kernel.attach", kernel=name, after=None)
    return kernel


# ── the source that runs on nodes ────────────────────────────────────────────────────────────────────────────────────────────


AGENT: dict[str, str] = json.loads(boot.SOURCE)


@pytest.mark.parametrize(
    "source",
    [*AGENT.values(), boot.BOOT, UNPACK, PythonKernel.LAUNCHER],
    ids=[*AGENT, "boot", "unpack", "launcher"],
)
def test_what_runs_on_nodes_is_python_3_8(source: str) -> None:
    """What is sent to nodes holds no syntax that is newer than Python 3.8."""
    ast.parse(source, feature_version=(3, 8))


def test_the_agent_needs_the_standard_library_alone() -> None:
    """The agent imports nothing that Python 3.8 does not bring along."""
    allowed = sys.stdlib_module_names - {"tomllib", "graphlib", "zoneinfo"}
    nodes = [node for text in AGENT.values() for node in ast.walk(ast.parse(text))]
    names = {alias.name.partition(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {(node.module or "").partition(".")[0] for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    assert names <= allowed


# ── which wheels ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def interpreter(**changes: Any) -> Interpreter:
    return Interpreter.read({**REPORT, **changes})


def wheel(name: str, *requires: str) -> Wheel:
    return Wheel(Path(f"{name}.whl"), name, hashlib.sha256(name.encode()).hexdigest(), 1, tuple(map(Requirement, requires)))


def test_platforms_are_those_that_the_libc_allows() -> None:
    """Wheels are asked for that were built for the node's C library or an older one, on its processor."""
    glibc = interpreter().platforms
    assert glibc[0] == "manylinux_2_31_x86_64"
    assert {"manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64"} <= set(glibc)
    assert not any(tag.startswith(("manylinux_2_32", "musllinux")) for tag in glibc)
    assert interpreter(libc=None, machine="aarch64").platforms == ["musllinux_1_2_aarch64", "musllinux_1_1_aarch64"]
    assert "manylinux2014_x86_64" not in interpreter(libc="glibc 2.12").platforms


@pytest.mark.parametrize("wrong", [{"version": "new"}, {"version": [3]}, {"machine": "../x"}, {"machine": None}, {"installed": [1]}])
def test_a_description_from_a_node_is_not_trusted(wrong: dict[str, Any]) -> None:
    """What a node says of its Python becomes arguments and paths here, so it is refused when it is not what it should be."""
    with pytest.raises(Unavailable):
        interpreter(**wrong)


def test_what_the_node_has_and_what_will_do_is_not_brought() -> None:
    """Only what is lacking, or too old for what is brought along, is put beside the node's packages."""
    everything = [wheel("ipykernel", "traitlets>=5", "six", "tornado>=6"), wheel("traitlets"), wheel("six"), wheel("tornado", "six>=1.17")]
    lacking = wheels.lacking(everything, interpreter(installed={"traitlets": "4.3", "six": "1.16", "tornado": "6.1"}))
    assert [item.name for item in lacking] == ["ipykernel", "traitlets"]
    lacking = wheels.lacking(everything, interpreter(installed={"traitlets": "4.3", "six": "1.16", "tornado": "5.0"}))
    assert [item.name for item in lacking] == ["ipykernel", "traitlets", "six", "tornado"]


def test_an_installation_that_does_not_work_is_not_trusted() -> None:
    """Where everything seems to be there and no kernel starts, everything is brought."""
    everything = [wheel("ipykernel", "six"), wheel("six")]
    assert wheels.lacking(everything, interpreter(installed={"ipykernel": "6.29", "six": "1.16"})) == everything


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"version": [3, 8], "soabi": "cpython-38-aarch64-linux-gnu", "machine": "aarch64", "libc": "glibc 2.28"}, "aarch64"),
        ({"version": [3, 12], "soabi": "cpython-312-x86_64-linux-musl", "libc": None}, "musllinux"),
    ],
    ids=["3.8-arm", "3.12-musl"],
)
def test_wheels_for_other_machines(changes: dict[str, Any], expected: str) -> None:
    """A complete set is found for an older Python and for another processor or C library than those here, and found again offline."""
    wanted = interpreter(installed={}, **changes)
    found = wheels.fetch(wanted)
    names = {item.name for item in found}
    assert {"ipykernel", "ipython", "pyzmq", "tornado", "traitlets", "jupyter-client"} <= names
    assert ("backcall" in names) == (wanted.version < (3, 12)), "what only an old Python needs is judged by the node's version"
    for item in found:
        assert {requirement.name.lower().replace("_", "-") for requirement in item.requires} <= names
    assert all(expected in item.path.name for item in found if item.name in ("pyzmq", "psutil"))
    assert [item.name for item in wheels.cached(wanted) or []] == [item.name for item in found]


def test_without_internet_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """When nothing can be fetched and nothing is cached, pip's reason is given, and nothing half-made stays in the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, value in {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null", "PIP_FIND_LINKS": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Unavailable, match="ipykernel"):
        wheels.fetch(interpreter())
    assert wheels.cached(interpreter()) is None


async def test_a_node_that_can_not_be_helped_says_how_it_can(run_directory: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The cell's error names the interpreter, why it is of no use, and the two ways out."""
    monkeypatch.setattr(wheels, "_cache", lambda: tmp_path)

    def fetch(interpreter: Interpreter) -> list[Wheel]:
        raise Unavailable("there is no internet")

    monkeypatch.setattr(wheels, "fetch", fetch)
    async with agent_of(run_directory, PYTHONNOUSERSITE="1", WARDIAN_PYTHON=sys._base_executable) as (link, channel):
        with pytest.raises(AgentError, match="has no ipykernel, and it cannot be fetched here: there is no internet") as caught:
            await started(link, channel, "p", "python")
        assert "Connect this machine to the internet once" in str(caught.value.remedy)
        assert f"{sys._base_executable} -m pip install ipykernel" in str(caught.value.remedy)


# ── how they get there ───────────────────────────────────────────────────────────────────────────────────────────────────────


def made(*entries: tuple[str, str]) -> bytes:
    """A wheel with these files."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, text in entries:
            archive.writestr(zipfile.ZipInfo(name), text)
    return stream.getvalue()


def key_of(*contents: bytes) -> str:
    return hashlib.sha256("\n".join(sorted(hashlib.sha256(data).hexdigest() for data in contents)).encode()).hexdigest()[:32]


def sent(*contents: bytes, end: bytes = b"end\n") -> bytes:
    return b"".join(b"%d %s\n" % (len(data), hashlib.sha256(data).hexdigest().encode()) + data for data in contents) + end


def unpack(folder: Path, key: str, stream: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-I", "-c", UNPACK, str(folder), key], input=stream, capture_output=True, timeout=30)


def test_what_arrives_is_unpacked_as_installed(tmp_path: Path) -> None:
    """A wheel's files, also those of its data folders for libraries, are where Python looks for them; scripts are left out."""
    data = made(("a/__init__.py", "x"), ("a-1.data/purelib/b.py", "y"), ("a-1.data/scripts/run", "z"), ("a-1.dist-info/METADATA", "m"))
    assert unpack(tmp_path, key_of(data), sent(data)).returncode == 0
    root = tmp_path / key_of(data)
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()) == [
        "a-1.dist-info/METADATA",
        "a/__init__.py",
        "b.py",
    ]


@pytest.mark.parametrize("name", ["../evil.py", "/evil.py", "a/../../evil.py", "a-1.data/purelib/../../evil.py", "a//evil.py"])
def test_no_file_leaves_the_folder(tmp_path: Path, name: str) -> None:
    """A wheel with a path that leads out of its folder is refused, and nothing of it gets a name that is used."""
    folder = tmp_path / "packages"
    folder.mkdir()
    data = made(("good.py", ""), (name, "evil"))
    done = unpack(folder, key_of(data), sent(data))
    assert done.returncode != 0
    assert b"no path within a package" in done.stderr
    assert not list(tmp_path.rglob("evil.py"))
    assert not (folder / key_of(data)).exists()


def test_what_is_cut_short_or_damaged_is_never_used(tmp_path: Path) -> None:
    """A transfer that ends early, is damaged, or is not what it is called, leaves no folder; the next one makes it whole."""
    data = made(("a.py", "x" * 1000))
    key, whole = key_of(data), sent(data)
    damaged = whole.replace(b"xxx", b"xyx", 1)
    for stream in (whole[:-200], sent(data, end=b""), damaged, sent(made(("b.py", "")))):
        assert unpack(tmp_path, key, stream).returncode != 0
        assert not (tmp_path / key).exists()
    assert unpack(tmp_path, key, whole).returncode == 0
    assert (tmp_path / key / "a.py").read_text() == "x" * 1000
    assert not list(tmp_path.glob(".new-*"))


def test_two_at_once_are_harmless(tmp_path: Path) -> None:
    """Several that bring the same at once all end well, with one whole folder."""
    data = made(*((f"m{index}.py", "x" * 5000) for index in range(200)))
    argv = [sys.executable, "-I", "-c", UNPACK, str(tmp_path), key_of(data)]
    with ThreadPoolExecutor() as senders:
        done = list(senders.map(lambda _: subprocess.run(argv, input=sent(data), stderr=subprocess.PIPE, timeout=60), range(4)))
    assert [(process.returncode, process.stderr) for process in done] == [(0, b"")] * 4
    assert len(list((tmp_path / key_of(data)).iterdir())) == 200


@pytest.mark.slow
async def test_a_bare_interpreter_gets_a_kernel(run_directory: str, tmp_path: Path) -> None:
    """An interpreter without ipykernel runs cells; what it lacked is beside it, and nothing was installed into it."""
    notes: list[str] = []
    async with agent_of(run_directory, PYTHONNOUSERSITE="1", WARDIAN_PYTHON=sys._base_executable) as (link, channel):
        kernel = await started(link, channel, "p", "python", notes)
        result = await kernel.run("import sys, ipykernel; print(sys.executable); print(ipykernel.__file__)")
        python, module = result.text().split()
        assert python == sys._base_executable
        assert "/wardian/packages/" in module
        again: list[str] = []
        await started(link, channel, "q", "python", again)
        assert again == []
    done = await asyncio.to_thread(subprocess.run, [sys._base_executable, "-I", "-c", "import ipykernel"], capture_output=True)
    assert done.returncode == 1


async def test_a_kernel_that_still_does_not_start_is_an_error(run_directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was brought and does not help is not brought again and again: the second failure is the cell's error."""

    class Link:
        asked = 0

        async def request(self, op: str, **arguments: Any) -> dict[str, Any]:
            self.asked += 1
            return {"needs": {**REPORT, "error": "no module named x", "there": ["k"]}}

    async def provide(*_: Any) -> str:
        return "k"

    monkeypatch.setattr(kernels, "_provide", provide)
    fake = Link()
    with pytest.raises(AgentError, match=r"Python 3\.9 .* cannot run a kernel: no module named x"):
        await start_kernel(fake, HostChannel(run_directory), "host", "p", "python", lambda text: None)
    assert fake.asked == 2


async def test_a_python_that_is_too_old(run_directory: str) -> None:
    """An interpreter older than 3.8 is an error that names its version, and nothing is fetched for it."""

    class Link:
        async def request(self, op: str, **arguments: Any) -> dict[str, Any]:
            return {"needs": {**REPORT, "version": [3, 6]}}

    with pytest.raises(AgentError, match=r"Python 3\.6 \(/usr/bin/python3\) is too old"):
        await start_kernel(Link(), HostChannel(run_directory), "host", "p", "python", lambda text: None)


# ── kernels of kernelspecs ───────────────────────────────────────────────────────────────────────────────────────────────────

IPYKERNEL = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
TCP_ONLY = """
import json, sys
if json.load(open(sys.argv[2]))["transport"] != "tcp":
    sys.exit("only tcp is known here")
from ipykernel.kernelapp import launch_new_instance
launch_new_instance()
"""


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    """A folder for JUPYTER_PATH with a kernelspec of each kind."""
    for name, spec in {
        "by-message": {
            "argv": IPYKERNEL,
            "display_name": "M",
            "language": "python",
            "interrupt_mode": "message",
            "env": {"X": "${HOME}/x"},
        },
        "tcp-only": {"argv": [sys.executable, "-c", TCP_ONLY, "-f", "{connection_file}"], "display_name": "T", "language": "tea"},
        "Shell": {"argv": [sys.executable, "-m", "bash_kernel", "-f", "{connection_file}"], "display_name": "Bash", "language": "bash"},
        "broken": {"argv": ["/no/such/kernel", "{connection_file}"], "display_name": "B", "language": "none"},
        "ends": {"argv": ["/bin/sh", "-c", "echo it is a pity; exit 4"], "display_name": "E", "language": "none"},
    }.items():
        (tmp_path / "kernels" / name).mkdir(parents=True)
        (tmp_path / "kernels" / name / "kernel.json").write_text(json.dumps(spec))
    (tmp_path / "kernels" / "no-kernel").mkdir()
    return tmp_path


@pytest.fixture
async def jupyter(run_directory: str, specs: Path) -> AsyncIterator[tuple[AgentLink, HostChannel]]:
    async with agent_of(run_directory, JUPYTER_PATH=str(specs), HOME=str(specs)) as both:
        yield both


async def test_the_kernels_that_there_are(jupyter: tuple[AgentLink, HostChannel]) -> None:
    """The agent lists the kernelspecs where Jupyter looks for them, and none that would be a router within a node."""
    found = (await jupyter[0].request("kernel.specs"))["specs"]
    assert {"by-message", "tcp-only", "shell", "broken", "ends"} <= set(found)
    assert found["tcp-only"] == {"language": "tea", "display_name": "T"}
    assert "wardian" not in found
    assert "no-kernel" not in found


async def test_a_kernel_by_name_and_by_language(jupyter: tuple[AgentLink, HostChannel]) -> None:
    """A kernel is found by its spec's name, whatever its case, and by its language where only one has it."""
    kernel = await started(*jupyter, "s", "SHELL")
    result = await kernel.run("x=5; echo $x")
    assert result.text() == "5\n"
    assert (await kernel.run("echo $x")).text() == "5\n"
    with pytest.raises(AgentError, match="several kernels for 'none': broken, ends"):
        await started(*jupyter, "n", "none")


async def test_an_interrupt_by_message(jupyter: tuple[AgentLink, HostChannel]) -> None:
    """A kernel whose spec asks for it is interrupted by a message; what its spec sets in the environment is set."""
    kernel = await started(*jupyter, "m", "by-message")
    assert (await kernel.run("import os; print(os.environ['X'])")).text().endswith("/x\n")
    # in short pieces: ipykernel signals itself from a thread, and Python does not notice a signal that comes as its sleep begins
    number = kernel.execute("import time; kept = 1; print('go', flush=True)\nwhile True: time.sleep(0.01)")
    await kernel.says(number, "go\n")
    await jupyter[0].request("kernel.interrupt", kernel="m")
    assert (await kernel.result(number)).reply["ename"] == "KeyboardInterrupt"
    assert (await kernel.run("print(kept)")).text() == "1\n"


async def test_a_kernel_that_knows_only_tcp(jupyter: tuple[AgentLink, HostChannel]) -> None:
    """A kernel that can't use Unix sockets is started again on the node's loopback interface, with a key."""
    kernel = await started(*jupyter, "t", "tea")
    assert (await kernel.run("print(6 * 7)")).text() == "42\n"


async def test_kernels_that_do_not_start(jupyter: tuple[AgentLink, HostChannel]) -> None:
    """A kernel whose program is missing, or ends at once, is an error with the reason."""
    with pytest.raises(AgentError, match=r"could not be started: .*No such file"):
        await started(*jupyter, "b", "broken")
    with pytest.raises(AgentError, match=r"E ended while starting \(exit code 4\):\nit is a pity"):
        await started(*jupyter, "e", "ends")


async def test_an_unknown_kernel(jupyter: tuple[AgentLink, HostChannel]) -> None:
    """A name that nothing on the node has is an error with the names that there are."""
    with pytest.raises(AgentError, match=r"no kernel for 'cobol'; there are python, bash, .*tcp-only \(T\)"):
        await started(*jupyter, "c", "cobol")


# ── the agent's own ZeroMQ ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_large_messages_pass_both_ways(link: AgentLink, channel: HostChannel) -> None:
    """Messages far larger than a socket's buffer, with empty and binary buffers, go to a kernel and come from it unchanged."""
    kernel = await started(link, channel, "p", "python")
    size = 4_000_000
    result = await kernel.run(f"text = '{'x' * size}'; print(len(text))")
    assert result.text() == f"{size}\n"
    code = "import comm; c = comm.create_comm(target_name='t', data={}, buffers=[b'', bytes(range(256)) * 40000, b'end'])"
    number = kernel.execute(code)
    await kernel.result(number)
    (opened,) = [message for _, _, message in kernel.messages if message["header"]["msg_type"] == "comm_open"]
    assert opened["buffers"] == [b"", bytes(range(256)) * 40000, b"end"]


async def test_many_small_messages_keep_their_order(link: AgentLink, channel: HostChannel) -> None:
    """Thousands of messages from a kernel come complete, in order."""
    kernel = await started(link, channel, "p", "python")
    code = "from IPython.display import publish_display_data\nfor i in range(5000): publish_display_data({'text/plain': str(i)})"
    number = kernel.execute(code)
    await kernel.result(number)
    shown = [message["content"] for _, _, message in kernel.messages if message["header"]["msg_type"] == "display_data"]
    assert [content["data"]["text/plain"] for content in shown] == [str(index) for index in range(5000)]


async def test_who_does_not_know_the_key_is_not_heard(link: AgentLink, channel: HostChannel, run_directory: str) -> None:
    """A message to a kernel that is not signed with its key does nothing."""
    import zmq

    kernel = await started(link, channel, "p", "python")
    header = json.dumps({"msg_id": "x", "msg_type": "execute_request", "session": "x", "username": "x", "version": "5.4"}).encode()
    content = json.dumps({"code": "stranger = 1", "silent": False}).encode()
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.linger = 0
        stranger.connect(f"ipc://{run_directory}/kernels/p/k-1")
        stranger.send_multipart([b"<IDS|MSG>", b"0" * 64, header, b"{}", b"{}", content])
        assert await asyncio.to_thread(stranger.poll, 300) == 0
    assert (await kernel.run("print('stranger' in dir())")).text() == "False\n"


# ── which interpreter the agent takes ────────────────────────────────────────────────────────────────────────────────────────


async def test_the_agent_runs_on_what_the_node_names_if_there_is_nothing_else(run_directory: str) -> None:
    """Where no usual interpreter is there, the one of the node's `python:` runs the agent too."""
    link = await AgentLink.open(HostChannel(run_directory, WARDIAN_PYTHON=sys.executable), "host", pythons=["/no/such/python"])
    assert link.agent["python"] == sys.executable
    await link.close()


async def test_the_agent_goes_past_an_interpreter_that_is_too_old(run_directory: str, tmp_path: Path) -> None:
    """A `python3` older than 3.8 does not keep the agent from a newer interpreter that is there too; alone it is an error."""
    pretend = 'import sys; sys.version_info = (3, 6); code = sys.argv[2]; sys.argv = ["-c", *sys.argv[3:]]; exec(code)'
    old = tmp_path / "python3"
    old.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{pretend}' \"$@\"\n")
    old.chmod(0o755)
    with pytest.raises(AgentError, match=r"the agent needs 3\.8"):
        await AgentLink.open(HostChannel(run_directory), "host", pythons=[str(old)])
    link = await AgentLink.open(HostChannel(run_directory), "host", pythons=[str(old), "/no/such/python", sys.executable])
    assert link.agent["python"] == sys.executable
    await link.close()
