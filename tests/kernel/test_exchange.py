"""Values between home and nodes: %get, %put and the last results."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from wardian.kernel.values.exchange import _lending_stdin, _lending_stdout

from .conftest import Notebook

pytestmark = pytest.mark.slow

RESULTS = "from wardian.kernel.values.results import results\n"


@pytest.mark.parametrize(
    ("make", "check"),
    [
        ("{'a': (1, 2.5), 'b': [None, 'ü']}", "v == {'a': (1, 2.5), 'b': [None, 'ü']}"),
        ("2**100", "v == 2**100"),
        ("bytes(range(256))", "v == bytes(range(256))"),
        ("__import__('numpy').arange(400_000.0)", "v.sum() == 79999800000.0 and str(v.dtype) == 'float64'"),
        ("__import__('pandas').DataFrame({'a': [1, 2], 'b': ['x', None]})", "v.a.sum() == 3 and v.b.isna().sum() == 1"),
        ("__import__('pandas').Series([1.0], name='s')", "v.name == 's'"),
    ],
)
def test_there_and_back(notebook: Notebook, make: str, check: str) -> None:
    """Each kind of value goes to a node and comes back as it was."""
    notebook.run(f"v = {make}")
    assert notebook.run("%put v as there --to server").status == "ok"
    assert notebook.run(f"%%on server\nv = there\n{check}").value.strip("np.()") in ("True", "True_")
    notebook.run("del v")
    got = notebook.run("%get there as v --from server")
    assert got.status == "ok", got.traceback
    assert "True" in notebook.run(check).value


def test_several_nodes(notebook: Notebook) -> None:
    """From several nodes comes a dict by node; to several goes the same value."""
    notebook.run("n = 7")
    notebook.run("%put n --to client")
    notebook.run("%%on client\nimport os; mine = (n, os.environ['WARDIAN_TEST_NODE'])")
    notebook.run("%get mine --from client")
    assert notebook.run("mine").value == "{'client[0]': (7, 'client[0]'), 'client[1]': (7, 'client[1]')}"


def test_bash_variables(notebook: Notebook) -> None:
    """A bash variable comes home as text, to the last line end, and text goes there, whatever is in it."""
    notebook.run("text = \"a 'b' $HOME `x`\\n\\n\"")
    notebook.run("%put text as TEXT --to server --lang bash")
    assert notebook.run('%%on server --lang bash\nprintf %s "$TEXT"').text() == "a 'b' $HOME `x`\n\n"
    notebook.run("%get TEXT as back --from server --lang bash")
    assert notebook.run("back == text").value == "True"


def test_files(notebook: Notebook, tmp_path: Path) -> None:
    """A path in place of a name copies a file: there under a name of its own, and back from several nodes into a folder of each."""
    (tmp_path / "data.csv").write_text("a,b\n")
    notebook.run(f"import os; os.chdir({str(tmp_path)!r})")
    sent = notebook.run(f"%put ./data.csv as {tmp_path}/there.csv --to server")
    assert sent.status == "ok", sent.traceback
    assert "1 file, 4 bytes" in sent.text()
    assert (tmp_path / "there.csv").read_text() == "a,b\n"
    assert notebook.run(f"%get {tmp_path}/there.csv as back --from client").status == "ok"
    assert [(tmp_path / "back" / node / "there.csv").read_text() for node in ("client[0]", "client[1]")] == ["a,b\n"] * 2
    assert "nothere" in notebook.run("%get /nothere --from server").reply["evalue"]


def test_what_cannot_be_moved(notebook: Notebook) -> None:
    """A value without an exact form is refused both ways, naming its type; a name that does not exist is named."""
    notebook.run("%%on server\nopened = open('/dev/null')")
    assert "TextIOWrapper" in notebook.run("%get opened --from server").error
    notebook.run("opened = open('/dev/null')")
    assert "TextIOWrapper" in notebook.run("%put opened --to server").error
    assert "no variable 'nowhere'" in notebook.run("%get nowhere --from server").error
    assert "no variable 'NOWHERE'" in notebook.run("%get NOWHERE --from server --lang bash").error
    assert "no variable 'nowhere'" in notebook.run("%put nowhere --to server").error


def test_nothing_is_left_behind(notebook: Notebook) -> None:
    """No file of a moved value stays on the node or at home."""
    notebook.run("n = 1")
    notebook.run("%put n --to server")
    notebook.run("%get n as m --from server")
    assert list((notebook.nodes / "server" / "values").iterdir()) == []
    notebook.run("import os, pathlib; folder = pathlib.Path(os.environ['WARDIAN_KERNEL_SOCKET']).parent")
    assert notebook.run("[path.name for path in folder.iterdir() if len(path.name) == 16]").value == "[]"


def test_mistakes_in_magics(notebook: Notebook) -> None:
    """A magic that is not understood says how it is written."""
    assert "--from SELECTOR" in notebook.run("%get x").error
    assert "--to SELECTOR" in notebook.run("%put x --from server").error
    assert "nowhere" in notebook.run("%get x --from nowhere").error


def test_results_of_python(notebook: Notebook) -> None:
    """`results` holds what the last cell on nodes gave, by node."""
    notebook.run("%%on client\nimport os\n[os.environ['WARDIAN_TEST_NODE']]")
    assert notebook.run(RESULTS + "dict(results)").value == "{'client[0]': ['client[0]'], 'client[1]': ['client[1]']}"
    notebook.run("%%on server\n40 + 2")
    assert notebook.run(RESULTS + "list(results), results['server']").value == "(['server'], 42)"
    assert "KeyError" in notebook.run(RESULTS + "results['client[0]']").error


def test_results_of_bash(notebook: Notebook) -> None:
    """Of a bash cell `results` holds what it printed."""
    notebook.run("%%on server --lang bash\necho one; echo two")
    assert notebook.run(RESULTS + "results['server']").value == "'one\\ntwo\\n'"


def test_results_of_a_failed_node(notebook: Notebook) -> None:
    """A node that failed is marked so, and has no value."""
    notebook.run("%%on client\nimport os\n1 / (os.environ['WARDIAN_TEST_NODE'] == 'client[0]')")
    assert notebook.run(RESULTS + "repr(results)").value == "'<results: client[0], client[1] (failed)>'"
    assert "failed there" in notebook.run(RESULTS + "results['client[1]']").error


def test_nodes_as_dictionaries(notebook: Notebook) -> None:
    """`wardian.nodes` gives, sets, lists and deletes the variables of nodes, one or several, and its names are those of the nodes."""
    notebook.run("import wardian, wardian.nodes.files")
    notebook.run("for node in list(wardian.nodes): wardian.nodes[node]['own'] = node")
    assert notebook.run("wardian.nodes['server']['own']").value == "'server'"
    assert notebook.run("wardian.nodes['client']['own']").value == "{'client[0]': 'client[0]', 'client[1]': 'client[1]'}"
    assert notebook.run("%%on server\nown").value == "'server'"
    assert notebook.run("'own' in wardian.nodes['all'], 'other' in wardian.nodes['all']").value == "(True, False)"
    assert notebook.run("'own' in list(wardian.nodes['server'])").value == "True"
    assert "server │" in notebook.run("wardian.nodes['server']").value
    notebook.run("del wardian.nodes['client']['own']")
    assert notebook.run("'own' in wardian.nodes['client[0]'], 'own' in wardian.nodes['server']").value == "(False, True)"
    assert "no variable 'own'" in notebook.run("wardian.nodes['client']['own']").error
    assert "nowhere" in notebook.run("wardian.nodes['nowhere']").error
    assert notebook.run("'nowhere' in wardian.nodes, 'server' in wardian.nodes").value == "(False, True)"
    assert notebook.run("repr(wardian.nodes)").value == "'<nodes: client[0], client[1], server>'"


def test_by_pickle(notebook: Notebook) -> None:
    """With --pickle any object goes both ways, and bringing one home says what that means."""
    notebook.run("import datetime, wardian; moment = datetime.timedelta(seconds=5)")
    assert "--pickle" in notebook.run("%put moment --to server").error
    assert notebook.run("%put moment --to server --pickle").status == "ok"
    assert notebook.run("%%on server\nmoment.seconds").value == "5"
    assert "timedelta" in notebook.run("%get moment as back --from server").error
    assert "can run code here" in notebook.run("%get moment as back --from server --pickle").text("stderr")
    assert notebook.run("back == moment == wardian.nodes['server'].get('moment', pickle=True)").value == "True"


def test_a_large_array(notebook: Notebook) -> None:
    """A large array goes to several nodes at once and back, as it was."""
    notebook.run("import numpy, wardian; large = numpy.arange(8_000_000.0)")
    assert notebook.run("%put large --to all").status == "ok"
    assert notebook.run("%%on server\nlarge.sum() == 31999996000000.0 and large.flags.writeable").value == "True"
    got = notebook.run("found = wardian.nodes['all']['large']; [(value == large).all() for value in found.values()]")
    assert "False" not in got.value
    assert got.value.count("True") == 3


PEAK = """
def peak(work):
    import re
    def read(name):
        return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = read("VmRSS")
    work()
    return read("VmHWM") - before
"""


def test_memory_is_never_doubled(notebook: Notebook) -> None:
    """An array of 128 MiB takes nothing more at home while it is sent, and once its size at home when it comes back."""
    notebook.run("import numpy, wardian; large = numpy.ones(2**24)")
    notebook.run(PEAK)
    assert int(notebook.run("peak(lambda: wardian.nodes['server'].put('large', large))").value) < 32
    notebook.run("del large")
    assert 120 < int(notebook.run("peak(lambda: wardian.nodes['server'].get('large'))").value) < 128 + 32
    notebook.run("del wardian.nodes['server']['large']")


def test_what_takes_long_shows_how_far_it_is(notebook: Notebook) -> None:
    """A transfer says how far it is once it has taken a while, and when it is over."""
    notebook.run("from wardian.kernel.values import transfer; transfer._PATIENCE, before = 0.0, transfer._PATIENCE; import numpy")
    notebook.run("large = numpy.zeros(4_000_000)")
    shown = notebook.run("%put large --to server").text()
    notebook.run("transfer._PATIENCE = before")
    assert "large → server │" in shown
    assert shown.endswith("\n")
    assert "31 of 31 MiB" in shown


def test_too_large_for_the_node(notebook: Notebook) -> None:
    """A value that the node has no room for is refused before it is sent, and nothing is set."""
    notebook.run("from wardian.kernel.values import transfer, encoding as values; import wardian")
    notebook.run("claimed = values.Parcel({'form': 'bytes'}, 2**50, lambda write: write(b'x' * 2**24))")
    notebook.run("real, values.pack = values.pack, lambda value, by_pickle: claimed")
    refused = notebook.run("%put claimed as huge --to server")
    notebook.run("values.pack = real")
    assert "1048576.0 GiB of memory" in refused.error
    assert "server" in refused.error
    assert notebook.run("'huge' in wardian.nodes['server']").value == "False"


@pytest.mark.parametrize("begun", [True, False])
def test_interrupted(notebook: Notebook, begun: bool) -> None:
    """A transfer that is interrupted sets nothing, and the node's kernel works on, even one that had not begun to receive."""
    kernel = int(notebook.run("%%on server\nimport os; os.getpid()").value)
    notebook.run("import time, wardian; from wardian.kernel.values import encoding as values")
    notebook.run(
        "def send(write):\n    write(b'x' * 1000)\n    print('sending', flush=True)\n    time.sleep(60)\n"
        "slow = values.Parcel({'form': 'bytes'}, 2000, send)\nreal, values.pack = values.pack, lambda value, by_pickle: slow"
    )
    if not begun:
        os.kill(kernel, signal.SIGSTOP)
    sending = notebook.send("%put slow as half --to server")
    notebook.printed(sending, "sending")
    notebook.interrupt()
    assert notebook.result(sending).reply["ename"] == "KeyboardInterrupt"
    os.kill(kernel, signal.SIGCONT)
    notebook.run("values.pack = real")
    assert notebook.run("'half' in wardian.nodes['server']").value == "False"
    assert notebook.run("%%on server\n1 + 1").value == "2"


class NoPipes:
    """A process whose streams are no pipes of this host, as those of a channel over SSH."""

    def __init__(self, stdin: asyncio.StreamWriter, stdout: asyncio.StreamReader) -> None:
        self.stdin, self.stdout = stdin, stdout


async def test_streams_that_are_no_pipes() -> None:
    """Where a channel has no pipes the router carries what home writes and reads."""
    ours, theirs = socket.socketpair()
    stdout, stdin = await asyncio.open_connection(sock=ours)
    reader, writer = await asyncio.open_connection(sock=theirs)
    process: Any = NoPipes(stdin, stdout)
    async with _lending_stdin(process) as descriptor:
        os.write(descriptor, b"there")
        assert await reader.readexactly(5) == b"there"
    async with _lending_stdout(process) as descriptor:
        writer.write(b"and back")
        await writer.drain()
        writer.close()
        assert await asyncio.to_thread(os.read, descriptor, 100) == b"and back"
    stdin.close()
