"""Python kernels that are forked from a preloaded process: like any other kernel, only sooner."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.nodes.conftest import Kernel
from tests.stage import Stage, make_stage
from wardian import aio
from wardian.kernel.session.preloading import LATER, MODULES
from wardian.nodes.link import AgentLink
from wardian.providers.local.cgroups import Cgroups
from wardian.providers.preloaded import Forked, Preloaded

pytestmark = [pytest.mark.root, pytest.mark.slow]

EXPERIMENT = """
name: NAME
networks: {lan: {}}
nodes:
  box: {count: 20, networks: lan}
  small: {networks: lan, memory: 256MiB}
  other: {networks: lan, env: {PYTHONPATH: /opt/elsewhere}}
"""

PROBE = r"""
import json, os, re, resource, sys, locale, socket, platform
# a shell starts the agent that is not forked, and sets these; the last one is set by the debugger as it is loaded
own = ("HOSTNAME", "WARDIAN_NODE", "PWD", "OLDPWD", "SHLVL", "_", "PYDEVD_USE_FRAME_EVAL")
def link(path):
    return os.readlink(f"/proc/{path}")
def described(path):
    return re.sub(r"\d+", "N", path)
lines = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
print(json.dumps({
    "variables": {name: value for name, value in os.environ.items() if name not in own},
    "folder": os.getcwd(), "root": os.listdir("/"), "umask": os.popen("umask").read(),
    "status": {name: lines[name].strip() for name in (
        "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Uid", "Gid", "Groups", "SigBlk")},
    "ignored": int(lines["SigIgn"], 16) & ~(3 << 31),  # those two are the C library's own
    "limits": [resource.getrlimit(number) for number in range(16)],
    "nice": os.getpriority(os.PRIO_PROCESS, 0),
    "namespaces": [name for name in os.listdir("/proc/self/ns") if link(f"self/ns/{name}") != link(f"1/ns/{name}")],
    "groups": open("/proc/self/cgroup").read() == open("/proc/1/cgroup").read(),
    "leader": os.getsid(0) == os.getpid() == os.getpgid(0),
    "files": sorted({described(link(f"self/fd/{fd}")) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")}),
    "arguments": [described(word) for word in sys.argv], "path": sys.path, "flags": list(sys.flags), "prefix": sys.prefix,
    "main": sorted(name for name in vars(sys.modules["__main__"]) if name.startswith("__")),
    "locale": locale.setlocale(locale.LC_CTYPE), "encoding": [sys.stdout.encoding, sys.getfilesystemencoding()],
    "name": platform.node() == socket.gethostname(), "interpreter": sys.executable, "history": get_ipython().history_manager.enabled,
}))
"""

FORKED = "import sys; print('wardian.nodes.stem' in sys.modules)"

Open = Callable[..., Awaitable[Kernel]]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Twenty-two nodes."""
    stage = make_stage(tmp_path_factory.mktemp("cold"))
    stage.write(EXPERIMENT)
    stage.run("up", "-y")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WARDIAN_STATE", str(stage.state))
        yield stage
    stage.close()


@pytest.fixture
def preloaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Preloaded]:
    """A preloaded process of a user who has a secret."""
    monkeypatch.setenv("WARDIAN_TEST_SECRET", secrets.token_hex(16))
    for name in ("PYTHONPATH", "PYTHONHASHSEED"):
        monkeypatch.delenv(name, raising=False)
    preloaded = Preloaded(MODULES, LATER)
    yield preloaded
    preloaded.close()


@pytest.fixture
async def open_kernel(grown: Stage) -> AsyncIterator[Open]:
    """Opens a Python kernel on a node: `await open_kernel(node, preloaded)`; stops each node's agent in the end."""
    live = await aio.find(grown.folder / "experiment.yaml")
    kernels: list[Kernel] = []

    async def open_kernel(node: str, preloaded: Preloaded | None, name: str = "test") -> Kernel:
        link = await AgentLink.open(live.channel(node), node, preloaded=preloaded)
        kernel = await Kernel.start(link, name, "python")
        kernels.append(kernel)
        return kernel

    yield open_kernel

    async def stop(kernel: Kernel) -> None:
        with contextlib.suppress(Exception):
            await kernel.link.request("agent.stop")
        await kernel.link.close()

    await asyncio.gather(*(stop(kernel) for kernel in kernels))


async def said(kernel: Kernel, code: str) -> str:
    """What a cell prints; it must not fail."""
    result = await kernel.run(code)
    assert result.reply["status"] == "ok", result.reply
    return result.text()


def members(grown: Stage, node: str) -> set[int]:
    """The host's numbers of a node's processes."""
    return Cgroups.find().members(grown.identity(), node)


async def test_nothing_random_is_shared(open_kernel: Open, preloaded: Preloaded) -> None:
    """Kernels forked on twenty nodes draw twenty different streams, of every source of chance that Python has."""
    code = (
        "import json, os, random, secrets, ssl, tempfile, uuid, multiprocessing\n"
        "print(json.dumps([random.random(), uuid.uuid4().hex, uuid.uuid1().hex, secrets.token_hex(), ssl.RAND_bytes(8).hex(),\n"
        " next(tempfile._get_candidate_names()), bytes(multiprocessing.current_process().authkey).hex(),\n"
        " get_ipython().kernel.session.session]))"
    )
    kernels = await asyncio.gather(*(open_kernel(f"box[{number}]", preloaded) for number in range(20)))
    assert {await said(kernel, FORKED) for kernel in kernels} == {"True\n"}
    drawn = [json.loads(text) for text in await asyncio.gather(*(said(kernel, code) for kernel in kernels))]
    for source in zip(*drawn, strict=True):
        assert len(set(source)) == 20
    with_numpy = "import numpy; print(numpy.random.rand(), numpy.random.default_rng().random())"
    assert len({await said(kernel, with_numpy) for kernel in kernels[:4]}) == 4


async def test_like_any_other_kernel(open_kernel: Open, preloaded: Preloaded) -> None:
    """A forked kernel has the variables, rights, limits, namespaces, files and paths of one that was started, and nothing else."""
    forked, started = await asyncio.gather(open_kernel("box[0]", preloaded), open_kernel("box[1]", None))
    assert (await said(forked, FORKED), await said(started, FORKED)) == ("True\n", "False\n")
    ours, theirs = json.loads(await said(forked, PROBE)), json.loads(await said(started, PROBE))
    assert ours["namespaces"] == []
    assert ours["leader"]
    for what, value in theirs.items():
        assert different(ours[what], value) == {}, what


def different(ours: Any, theirs: Any) -> dict[str, Any]:
    """Where two values differ, as {where: both}."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return {name: (ours.get(name), theirs.get(name)) for name in {*ours, *theirs} if ours.get(name) != theirs.get(name)}
    return {} if ours == theirs else {"": (ours, theirs)}


async def test_no_secret_reaches_a_node(grown: Stage, open_kernel: Open, preloaded: Preloaded) -> None:
    """No process of a node has the user's variables in its memory, although the home kernel that got them was forked before."""
    secret = os.environ["WARDIAN_TEST_SECRET"].encode()
    home = {"argv": ["--version"], "env": dict(os.environ), "cwd": "/"}
    with open(os.devnull, "r+") as null:
        process = await Forked.begun(preloaded.fork("wardian.kernel.session.home_kernel:forked", home, [null.fileno()] * 3))
    assert await process.wait() == 0
    kernel = await open_kernel("box[2]", preloaded)
    assert await said(kernel, FORKED) == "True\n"
    inside = members(grown, "box[2]")
    assert len(inside) == 4, "the node has its init, a stem, an agent and a kernel, and nothing that only waits"
    assert holds(os.getpid(), secret), "the search finds what is there"
    assert not [pid for pid in inside if holds(pid, secret)]


def holds(pid: int, needle: bytes) -> bool:
    """Whether a process has these bytes anywhere in its memory."""
    with open(f"/proc/{pid}/maps") as table, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in table:
            found = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
            if found and "[v" not in line:
                start, end = (int(number, 16) for number in found.groups())
                memory.seek(start)
                with contextlib.suppress(OSError):
                    while start < end and (chunk := memory.read(min(end - start, 1 << 22))):
                        if needle in chunk:
                            return True
                        start += len(chunk)
    return False


async def test_memory_is_charged_to_the_node(grown: Stage, open_kernel: Open, preloaded: Preloaded) -> None:
    """What a forked kernel allocates counts against the limit of its node."""
    kernel = await open_kernel("small", preloaded)
    assert await said(kernel, FORKED) == "True\n"
    cgroups = Cgroups.find()
    if "memory" not in cgroups.roots:
        pytest.skip("this host has no memory controller")
    group = cgroups.roots["memory"] / "wardian" / grown.identity() / "small"
    usage = group / ("memory.current" if cgroups.version == 2 else "memory.usage_in_bytes")
    before = int(usage.read_text())
    await said(kernel, "held = b'x' * (64 << 20)")
    assert int(usage.read_text()) - before >= 64 << 20


async def test_another_environment_is_started(open_kernel: Open, preloaded: Preloaded) -> None:
    """On a node whose variables make Python another one, the kernel is started and not forked."""
    kernel = await open_kernel("other", preloaded)
    assert await said(kernel, FORKED) == "False\n"
    assert "/opt/elsewhere" in await said(kernel, "import sys; print(sys.path)")


async def test_changed_packages_are_started(grown: Stage, open_kernel: Open, preloaded: Preloaded) -> None:
    """On a node whose copy of the packages was changed, the kernel is started with what is there."""
    live = await aio.find(grown.folder / "experiment.yaml")
    code = "import os; open(os.path.dirname(os.__file__) + '/brought_along.py', 'w').write('value = 7')"
    process = await live.channel("box[3]").start([os.sys.executable, "-c", code])
    assert await process.wait() == 0
    await process.close()
    kernel = await open_kernel("box[3]", preloaded)
    assert await said(kernel, FORKED) == "False\n"
    assert await said(kernel, "import brought_along; print(brought_along.value)") == "7\n"


async def test_without_the_preloaded_process(open_kernel: Open, preloaded: Preloaded) -> None:
    """When the preloaded process is gone, kernels are started."""
    preloaded.close()
    assert await said(await open_kernel("box[4]", preloaded), FORKED) == "False\n"


async def test_an_agent_that_runs_gets_a_stem(open_kernel: Open, preloaded: Preloaded) -> None:
    """Also where services had the agent started before the notebook came, its kernels are forked."""
    first = await open_kernel("box[5]", None, "first")
    second = await open_kernel("box[5]", preloaded, "second")
    assert first.link.agent["pid"] == second.link.agent["pid"]
    assert await said(first, FORKED) == "False\n"
    assert await said(second, FORKED) == "True\n"


async def test_the_preloaded_process_is_not_needed_later(open_kernel: Open, preloaded: Preloaded) -> None:
    """Kernels outlive the preloaded process, and further ones are still forked on that node."""
    kernel = await open_kernel("box[6]", preloaded)
    await said(kernel, "kept = 42")
    preloaded.close()
    assert await said(kernel, "print(kept)") == "42\n"
    await kernel.link.request("kernel.start", kernel="later", language="python")
    await kernel.link.request("kernel.attach", kernel="later", after=None)
    kernel.name = "later"
    assert await said(kernel, FORKED) == "True\n"


async def test_a_forked_kernel_dies(open_kernel: Open, preloaded: Preloaded) -> None:
    """The end of a forked kernel is told with its signal, and its successor has a new number."""
    kernel = await open_kernel("box[7]", preloaded)
    old = await said(kernel, "import os; print(os.getpid())")
    kernel.execute("os.kill(os.getpid(), 9)")
    await kernel.until(lambda: kernel.events)
    assert (kernel.events[0]["event"], kernel.events[0]["signal"]) == ("kernel.died", 9)
    await kernel.link.request("kernel.start", kernel="test", language="python")
    await kernel.link.request("kernel.attach", kernel="test", after=None)
    assert await said(kernel, "import os; print(os.getpid())") != old


async def test_a_stem_dies(open_kernel: Open, preloaded: Preloaded) -> None:
    """When the stem is killed its kernels are told dead, and the next kernel is started."""
    kernel = await open_kernel("box[8]", preloaded)
    kernel.execute("import os; os.kill(os.getppid(), 9)")
    await kernel.until(lambda: kernel.events)
    assert kernel.events[0]["event"] == "kernel.died"
    await kernel.link.request("kernel.start", kernel="test", language="python")
    await kernel.link.request("kernel.attach", kernel="test", after=None)
    assert await said(kernel, FORKED) == "False\n"


async def test_an_agent_dies(grown: Stage, open_kernel: Open, preloaded: Preloaded) -> None:
    """Stem and kernels end with the agent."""
    kernel = await open_kernel("box[9]", preloaded)
    watched = [os.pidfd_open(pid) for pid in members(grown, "box[9]") if pid != grown.pid("box[9]")]
    assert len(watched) == 3
    kernel.execute(f"import os; os.kill({kernel.link.agent['pid']}, 9)")
    await asyncio.gather(*(ended(descriptor) for descriptor in watched))


async def ended(descriptor: int) -> None:
    """Wait for the end of the process behind a descriptor of pidfd_open(2)."""
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, gone.set)
    async with asyncio.timeout(20):
        await gone.wait()
    loop.remove_reader(descriptor)
    os.close(descriptor)


async def test_an_interrupt_reaches_a_forked_kernel(open_kernel: Open, preloaded: Preloaded) -> None:
    """A forked kernel heeds an interrupt and keeps its state."""
    kernel = await open_kernel("box[10]", preloaded)
    number = kernel.execute("kept = 1\nprint('on')\nimport time; time.sleep(1000)")
    await kernel.says(number, "on\n")
    await kernel.link.request("kernel.interrupt", kernel="test")
    assert (await kernel.result(number)).reply["ename"] == "KeyboardInterrupt"
    assert await said(kernel, "print(kept)") == "1\n"


async def test_what_is_forked_is_followed(preloaded: Preloaded) -> None:
    """Exit codes, signals and refusals of forked processes are told; a process that is let go of ends."""
    home = "wardian.kernel.session.home_kernel:forked"
    with open(os.devnull, "r+") as null:
        streams = [null.fileno()] * 3
        given = {"argv": ["--no-such-option=1", "--version"], "env": {"PATH": "/bin"}, "cwd": "/"}
        with pytest.raises(OSError, match="module"):
            await Forked.begun(preloaded.fork("wardian.kernel.nowhere:forked", given, streams))
        with pytest.raises(OSError, match="ended before it began"):
            await Forked.begun(preloaded.fork(home, {**given, "cwd": "/nowhere"}, streams))
        process = await Forked.begun(preloaded.fork(home, given, streams))
        assert await process.wait() == 0
        lasting = {**given, "argv": []}
        process = await Forked.begun(preloaded.fork(home, lasting, streams))
        process.signal(signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL
        process = await Forked.begun(preloaded.fork(home, lasting, streams))
        preloaded.close()
        assert await process.wait() == -signal.SIGKILL


def test_loading_is_without_consequence(tmp_path: Path) -> None:
    """What the preloaded process loads starts no thread and opens no socket, so that it may be forked."""
    import subprocess
    import sys

    code = (
        "import importlib, os, sys, threading\n"
        "before = set(os.listdir('/proc/self/fd'))\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "assert len(os.listdir('/proc/self/task')) == 1 == threading.active_count()\n"
        "assert set(os.listdir('/proc/self/fd')) == before\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *MODULES, *LATER], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
