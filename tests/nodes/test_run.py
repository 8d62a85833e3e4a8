"""Commands on nodes: their output, input, exit code, timeout and end, and several nodes at once."""

import asyncio
import io
import os
import signal

import pytest

from wardian.errors import CommandError, NodeDownError
from wardian.nodes.prefix import LinePrefixer
from wardian.nodes.run import Kept, run, run_on

from .host_channel import HostChannel


@pytest.fixture
def channel(tmp_path):
    return HostChannel(tmp_path)


class Begun(HostChannel):
    """Gives a process once it has made the file `begun`: a busy machine may be longer about that than a test's timeout."""

    async def start(self, *args, **kwargs):
        process = await super().start(*args, **kwargs)
        while not (self.home / "begun").exists():
            await asyncio.sleep(0.01)
        return process


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_result_holds_all_of_it(channel):
    """Node, command, exit code and both streams are in the record; output that is no UTF-8 is shown, not lost."""
    result = await run(channel, "a", ["sh", "-c", "printf 'out\\377'; echo err >&2; exit 3"])
    assert (result.node, result.exit_code, result.ok, result.stdout, result.stderr) == ("a", 3, False, "out\\xff", "err\n")
    assert "exit code 3" in str(result)


async def test_input_env_and_cwd(channel, tmp_path):
    """Bytes and asynchronous pieces reach its standard input, variables and working directory are as given."""

    async def pieces():
        for piece in (b"a", b"b"):
            yield piece

    assert (await run(channel, "a", ["cat"], input=b"x" * 300_000)).stdout == "x" * 300_000
    assert (await run(channel, "a", ["cat"], input=pieces())).stdout == "ab"
    assert (await run(channel, "a", ["cat"])).stdout == ""
    (tmp_path / "sub").mkdir()
    result = await run(channel, "a", ["sh", "-c", 'echo "$X $PWD"'], env={"X": "1 2"}, cwd=str(tmp_path / "sub"))
    assert result.stdout == f"1 2 {tmp_path}/sub\n"


async def test_a_command_that_does_not_read_its_input(channel):
    """A command may end without having read its input; that is no error."""
    assert (await run(channel, "a", ["true"], input=b"x" * 10_000_000)).exit_code == 0


async def test_output_comes_while_it_runs(channel):
    """Output is handed over before the command ends."""
    came = asyncio.Event()
    pieces = []

    def on_output(node, stream, data):
        pieces.append((node, stream, data))
        came.set()

    async def answer():
        await came.wait()
        yield b"go\n"

    result = await run(channel, "a", ["sh", "-c", "echo first; read line; echo $line >&2"], input=answer(), on_output=on_output)
    assert pieces == [("a", "stdout", b"first\n"), ("a", "stderr", b"go\n")]
    assert result.ok


async def test_what_the_listener_raises_ends_the_command(channel):
    """An error in `on_output` is not swallowed, and the command does not go on without a listener."""

    def on_output(*_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run(channel, "a", ["sh", "-c", "echo x; sleep 60"], on_output=on_output)
    assert not alive(channel.started[0].popen.pid)


async def test_only_so_much_is_kept(channel):
    """Past `keep` the middle of the output is cut, with a mark of how many bytes."""
    result = await run(channel, "a", ["sh", "-c", "printf aaaaa; head -c 1000000 /dev/zero | tr '\\0' b; printf ccccc"], keep=10)
    assert result.stdout == "aaaaa\n[… 1000000 bytes cut …]\nccccc"


@pytest.mark.parametrize("sizes", [[3], [10], [11], [4, 4, 4], [200_000, 200_000]])
def test_kept_bytes_add_up(sizes):
    """However output is split, what is kept and what is cut together are all of it."""
    kept = Kept(10)
    for size in sizes:
        kept.add(b"x" * size)
    text = kept.text()
    cut = int(text.split("[… ")[1].split()[0]) if "cut" in text else 0
    assert text.count("x") + cut == sum(sizes)
    assert text.count("x") == min(10, sum(sizes))


async def test_a_timeout_ends_it_and_keeps_what_came(tmp_path):
    """After the timeout the command gets SIGTERM, and the error holds the output until then, its last words too."""
    channel = Begun(tmp_path)
    script = "trap 'echo bye; exit' TERM; echo begun; touch begun; while :; do sleep 0.05; done"
    with pytest.raises(CommandError, match="not ended") as caught:
        await run(channel, "a", ["sh", "-c", script], timeout=0.5)
    assert caught.value.result.stdout == "begun\nbye\n"
    assert not alive(channel.started[0].popen.pid)


@pytest.mark.slow
async def test_what_ignores_the_timeout_is_killed(tmp_path):
    """A command that ignores SIGTERM is killed."""
    with pytest.raises(CommandError) as caught:
        await run(Begun(tmp_path), "a", ["sh", "-c", "trap '' TERM; touch begun; while :; do sleep 0.1; done"], timeout=0.2)
    assert caught.value.result.exit_code == 128 + signal.SIGKILL


async def test_cancelling_interrupts_it(channel, tmp_path):
    """Cancelled, the command gets SIGINT and may clean up, and is gone when the cancellation returns."""
    begun = asyncio.Event()
    script = "trap 'echo interrupted > said; exit 1' INT; echo begun; while :; do sleep 0.05; done"
    task = asyncio.create_task(run(channel, "a", ["sh", "-c", script], on_output=lambda *_: begun.set()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (tmp_path / "said").read_text() == "interrupted\n"
    assert not alive(channel.started[0].popen.pid)


async def test_what_stays_in_the_background_does_not_hold_us_up(channel):
    """A command that leaves a process behind with its streams open still ends when it ends."""
    result = await run(channel, "a", ["sh", "-c", "sleep 60 & echo $!"])
    assert result.ok
    os.kill(int(result.stdout), signal.SIGKILL)


async def test_errors_of_a_command(channel):
    """What cannot be started, and with `check` what fails, is a CommandError; a node that is down a NodeDownError."""
    with pytest.raises(CommandError, match="/nonexistent") as caught:
        await run(channel, "a", ["/nonexistent"])
    assert caught.value.result is None
    with pytest.raises(CommandError, match="exit code 4: no luck") as caught:
        await run(channel, "a", ["sh", "-c", "echo no luck >&2; exit 4"], check=True)
    assert caught.value.result.exit_code == 4
    channel.down = True
    with pytest.raises(NodeDownError):
        await run(channel, "a", ["true"])


async def test_several_nodes(tmp_path):
    """Results come in the order of the nodes; what is wrong with one becomes its result and hides no other's."""
    channels = {name: HostChannel(tmp_path, name, {"NAME": name}) for name in ("c", "b", "a")}
    channels["b"].down = True
    results = await run_on(channels, ["sh", "-c", "echo $NAME"])
    assert [(result.node, result.exit_code, result.stdout) for result in results] == [("c", 0, "c\n"), ("b", 255, ""), ("a", 0, "a\n")]
    assert "not running" in results[1].stderr
    with pytest.raises(CommandError, match="b"):
        await run_on(channels, ["true"], check=True)
    assert {result.exit_code for result in await run_on(channels, ["/nonexistent"])} == {127, 255}
    (late,) = await run_on({"a": Begun(tmp_path)}, ["sh", "-c", "echo x; touch begun; sleep 60"], timeout=0.3)
    assert (late.exit_code, late.stdout) == (124, "x\n")


async def test_no_more_at_once_than_asked(tmp_path):
    """At most `concurrency` commands run at a time, and more than one does."""
    channels = {str(number): HostChannel(tmp_path) for number in range(8)}
    script = "mkdir running.$$; ls -d running.* | wc -l; sleep 0.2; rmdir running.$$"
    results = await run_on(channels, ["sh", "-c", script], concurrency=3)
    counts = [int(result.stdout) for result in results]
    assert max(counts) in (2, 3)


def test_lines_are_prefixed_whole():
    """Pieces become whole lines behind their node's name, each stream to its own place, and the rest at the end."""
    out, err = io.StringIO(), io.StringIO()
    prefixer = LinePrefixer(["a", "client[0]"], out=out, err=err)
    prefixer("a", "stdout", b"on")
    prefixer("client[0]", "stdout", b"two\nthr")
    prefixer("a", "stdout", b"e\n")
    prefixer("a", "stderr", b"bad\n")
    prefixer.flush()
    assert out.getvalue() == "client[0] │ two\na         │ one\nclient[0] │ thr\n"
    assert err.getvalue() == "a         │ bad\n"


def test_color_obeys_the_terminal_and_no_color(monkeypatch):
    """Colour is for terminals, and NO_COLOR turns it off."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal()
    LinePrefixer(["a"], out=out)("a", "stdout", b"x\n")
    assert "\x1b[" in out.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    LinePrefixer(["a"], out=out)("a", "stdout", b"x\n")
    assert out.getvalue() == "a │ x\n"
