"""The interactive terminal: keys go through, sizes follow, and ours is put back as it was."""

import fcntl
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
import uuid

import pytest

PROGRAM = """
import asyncio, sys
from pathlib import Path
from tests.nodes.host_channel import HostChannel
from wardian.nodes.terminal import interact
home, *argv = sys.argv[1:]
code = asyncio.run(interact(HostChannel(Path(home)), "n", argv or None))
print(f"[exit {code}]", flush=True)
"""
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Session:
    """A process of ours on a pseudo-terminal whose other side this test holds."""

    def __init__(self, home, *argv):
        self.master, self.slave = os.openpty()
        self.resize(30, 100, quietly=True)
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, home, *argv],
            stdin=self.slave, stdout=self.slave, stderr=self.slave, start_new_session=True, cwd=ROOT,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), env={**os.environ, "TERM": "xterm-256color"},
        )  # fmt: skip
        self.seen = b""

    def resize(self, rows, columns, quietly=False):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if not quietly:
            self.process.send_signal(signal.SIGWINCH)

    def send(self, data):
        os.write(self.master, data)

    def expect(self, data):
        """Read until this comes; what was read up to its end is consumed."""
        deadline = time.monotonic() + 20
        while data not in self.seen:
            assert time.monotonic() < deadline, f"{data!r} has not come, only {self.seen!r}"
            if select.select([self.master], [], [], 0.5)[0]:
                self.seen += os.read(self.master, 65536)
        before, _, self.seen = self.seen.partition(data)
        return before

    def raw(self):
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON

    def restored(self):
        return termios.tcgetattr(self.slave) == self.before

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def session(tmp_path):
    sessions = []

    def start(*argv):
        sessions.append(Session(str(tmp_path), *argv))
        return sessions[-1]

    yield start
    for one in sessions:
        one.close()


def test_a_shell_with_its_terminal(session):
    """The default shell is interactive, has a terminal of our size and kind, follows a resize, and its exit code is ours."""
    shell = session()
    shell.send(b"stty size; echo $TERM; echo ma''rk\r")
    shell.expect(b"30 100\r\nxterm-256color\r\nmark")
    assert shell.raw()
    shell.resize(50, 132)
    shell.send(b"until [ \"$(stty size)\" = '50 132' ]; do sleep 0.1; done; echo si''zed\r")
    shell.expect(b"sized")
    shell.send(b"exit 7\r")
    shell.expect(b"[exit 7]")
    assert shell.process.wait(10) == 0
    assert shell.restored()


def test_interrupt_and_job_control(session):
    """Ctrl-C and Ctrl-Z reach the program on the node, not us, and its shell has job control."""
    shell = session()
    # a key that comes before the program has the terminal is the shell's own
    shell.send(b"sh -c 'echo be''gun; exec sleep 60'\r")
    shell.expect(b"begun")
    shell.send(b"\x03")
    shell.send(b"echo code $?\r")
    shell.expect(b"code 130")
    shell.send(b"sh -c 'echo be''gun; exec sleep 61'\r")
    shell.expect(b"begun")
    shell.send(b"\x1a")
    shell.expect(b"Stopped")
    shell.send(b"kill %1; exit 0\r")
    shell.send(b"exit 0\r")
    shell.expect(b"[exit 0]")


def test_every_byte_goes_through(session):
    """Control characters, also those that our own terminal would act on, arrive as they are."""
    program = session("sh", "-c", "stty raw -echo; echo ready; head -c 6 | od -An -tx1; stty sane")
    program.expect(b"ready")
    program.send(b"\x03\x1a\x11\x13\x1c\x04")
    program.expect(b"03 1a 11 13 1c 04")
    program.expect(b"[exit 0]")


def test_the_terminal_is_restored_when_the_program_dies(session):
    """Our terminal is put back when the program is killed, and the exit code says by what."""
    program = session("sh", "-c", "echo ready; kill -9 $$")
    program.expect(b"[exit 137]")
    assert program.process.wait(10) == 0
    assert program.restored()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_restored_when_we_are_ended(session, number):
    """SIGTERM and SIGHUP put our terminal back, end the program on the node, and show in the exit code."""
    program = session("sh", "-c", "echo pid $$.; exec sleep 60")
    program.expect(b"pid ")
    pid = int(program.expect(b"."))
    program.process.send_signal(number)
    program.expect(b"[exit %d]" % (128 + number))
    program.process.wait(10)
    assert program.restored()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_much_output_arrives_whole(session):
    """A flood of output loses nothing."""
    program = session("sh", "-c", "seq 1 20000; echo end''mark")
    text = program.expect(b"endmark")
    assert [int(line) for line in text.split()] == list(range(1, 20001))


def test_without_a_terminal_streams_are_plain(tmp_path):
    """When our input is no terminal the shell reads it as a script, streams stay apart, and bytes pass unchanged."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    script = b"test -t 0 || echo plain; echo err >&2; printf 'a\\r\\n\\377'; exit 5\n"
    done = subprocess.run(command, input=script, capture_output=True, cwd=ROOT, timeout=30, check=True)
    assert done.stdout == b"plain\na\r\n\xff[exit 5]\n"
    assert done.stderr == b"err\n"
    done = subprocess.run([*command, "wc", "-c"], input=b"x" * 1_000_000, capture_output=True, cwd=ROOT, timeout=30, check=True)
    assert done.stdout.split()[0] == b"1000000"
    done = subprocess.run([*command, "cat"], stdin=subprocess.DEVNULL, capture_output=True, cwd=ROOT, timeout=30, check=True)
    assert done.stdout == b"[exit 0]\n"
    (tmp_path / "script").write_bytes(b"echo from a file\n")
    with (tmp_path / "script").open("rb") as file:
        done = subprocess.run(command, stdin=file, capture_output=True, cwd=ROOT, timeout=30, check=True)
    assert done.stdout == b"from a file\n[exit 0]\n"


@pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed")
def test_in_tmux(tmp_path):
    """In a real terminal emulator a full-screen redraw, a resize and the prompt afterwards look as they should."""
    name = f"wardian-test-{uuid.uuid4().hex}"
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / ".bashrc").write_text("PS1='node$ '\n")

    def tmux(*arguments):
        return subprocess.run(["tmux", "-L", name, *arguments], capture_output=True, text=True, check=True).stdout

    def expect(text):
        deadline = time.monotonic() + 20
        while text not in (screen := tmux("capture-pane", "-p")):
            assert time.monotonic() < deadline, screen
            time.sleep(0.05)

    tmux("-f", "/dev/null", "new-session", "-d", "-x", "90", "-y", "25", "-c", ROOT, "env", "PS1=outer$ ", f"PYTHONPATH={ROOT}", "sh")
    try:
        tmux("send-keys", f"{sys.executable} {tmp_path}/program.py {tmp_path}", "Enter")
        expect("node$")
        tmux("send-keys", "stty size", "Enter")
        expect("25 90")
        tmux("resize-window", "-x", "70", "-y", "20")
        tmux("send-keys", "clear; stty size; printf '\\033[5;10Hhere'; echo", "Enter")
        expect("20 70")
        expect("         here")
        tmux("send-keys", "exit 3", "Enter")
        expect("[exit 3]")
        tmux("send-keys", "stty -a | grep -o ' icanon'; echo $((40 + 2))", "Enter")
        expect("icanon\n42")
    finally:
        tmux("kill-server")
