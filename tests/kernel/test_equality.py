"""A cell on a node behaves as a cell at home: the same things are run in both places, and have to send the same messages."""

from __future__ import annotations

import re
from typing import Any

import pytest

from .conftest import TIMEOUT, Notebook

pytestmark = pytest.mark.slow

HOME, NODE = "# at home", "%%on server"
"""What a cell begins with in each place; a line each, so that line numbers are equal."""

CELLS = {
    "print": "print('one'); print('two', end='')",
    "standard error": "import sys; print('bad', file=sys.stderr)",
    "result": "{'a': [1, 2], 'b': 'text'}",
    "no result": "x = 1",
    "semicolon": "40 + 2;",
    "last result": "40 + 2\n",
    "error": "def f():\n    return 1 / 0\nf()",
    "error after output": "print('before')\nraise ValueError('no')",
    "syntax error": "def broken(:",
    "keyboard interrupt": "raise KeyboardInterrupt",
    "exit": "import sys; sys.exit(3)",
    "html": "from IPython.display import HTML, display\ndisplay(HTML('<b>x</b>'))",
    "display ids": "from IPython.display import display\nh = display('a', display_id='x')\nh.update('b')",
    "clear": "from IPython.display import clear_output\nprint('a')\nclear_output(wait=True)\nprint('b')\nclear_output()",
    "figure": "import matplotlib\n%matplotlib inline\nimport matplotlib.pyplot as p\np.plot([1, 2])\np.show()",
    "progress": "from tqdm import tqdm\nfor i in tqdm(range(3), bar_format='{n}/{total}', mininterval=0, miniters=1):\n    pass",
    "magic": "%lsmagic\nNone",
    "cell magic": "%%capture out\nprint('kept')",
    "shell": "!echo from the shell",
    "shell lines": "lines = !echo a; echo b\nlines",
    "help": "len?",
    "source": "import textwrap\ntextwrap.dedent??",
    "next input": "get_ipython().set_next_input('next')",
    "await": "import asyncio\nawait asyncio.sleep(0, result='waited')",
    "warning": "import warnings\nwarnings.warn('careful')",
    "logging": "import logging\nlogging.warning('logged')",
    "comm": "from ipykernel.comm import Comm\nc = Comm('target', data={'a': 1}, comm_id='fixed')\nc.send({'b': 2})\nc.close()",
    "widget": "import ipywidgets\nw = ipywidgets.IntSlider(3)\nw.value = 4\nw",
    "last values": "6 * 7\n",
    "underscore": "_",
    "missing input": "input('?')",
    "exception group": "raise ExceptionGroup('several', [ValueError(1), TypeError(2)])",
}
OPTIONS: dict[str, dict[str, Any]] = {
    "silent": {"silent": True, "code": "print('heard')\n1"},
    "silent error": {"silent": True, "code": "1/0"},
    "no history": {"store_history": False, "code": "'kept out'"},
    "user expressions": {"user_expressions": {"good": "1 + 1", "bad": "1 / 0"}, "code": "pass"},
    "user expressions after an error": {"user_expressions": {"good": "1 + 1"}, "code": "1/0"},
}
ASKING = {
    "input": ("answer = input('who? ')\nanswer * 2", ["ab"]),
    "getpass": ("import getpass\ngetpass.getpass('secret? ')", ["xy"]),
    "input twice": ("[input('a'), input('b')]", ["1", "2"]),
    "post-mortem": ("%debug", ["p 6 * 7", "up", "q"]),
}


def normal(value: Any) -> Any:
    """A content without what has to differ: ids, prompts, the node's name, and where it ran."""
    if isinstance(value, dict):
        return {key: normal(item) for key, item in value.items() if key not in ("wardian", "engine_info", "execution_count", "model_id")}
    if isinstance(value, list):
        return [normal(item) for item in value if not (isinstance(item, str) and "── server ──" in item)]
    if isinstance(value, str):
        value = re.sub(r"\x1b\[[0-9;]*m", "", value)
        value = value.removeprefix(f"{HOME}\n").removeprefix(f"{NODE}\n").replace(f"# {NODE}", HOME)
        value = re.sub(r"\bIn ?\[\d+\]|<ipython-input-\d+-\w+>|(ipykernel_\d+/)?\d+\.py", "PROMPT", value)
        return re.sub(r"[0-9a-f]{32}|0x[0-9a-f]{6,}", "ID", value).rstrip("-")
    return value


def merged(messages: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    """The kinds and contents of messages; how a stream is cut into pieces is chance."""
    found: list[tuple[str, Any]] = []
    for message in messages:
        kind, content = message["msg_type"], dict(message["content"])
        if kind in ("execute_result", "execute_input") and "execution_count" in content:
            assert isinstance(content["execution_count"], int)
        if kind == "stream" and found and found[-1][0] == kind and found[-1][1]["name"] == content["name"]:
            content["text"] = found.pop()[1]["text"] + content["text"]
        found.append((kind, content))
    return [(kind, normal(content)) for kind, content in found]


def compare(notebook: Notebook, code: str, answers: list[str] | None = None, **options: Any) -> None:
    """Run it at home and on the node, and demand equality of messages and replies."""
    seen = []
    for line in (HOME, NODE):
        # a cell magic has to stand first, which below an %%on line it does
        first = "" if line == HOME and code.startswith("%%") else f"{line}\n"
        number = notebook.send(first + code, allow_stdin=answers is not None, **options)
        prompts = []
        for answer in answers or ():
            question = notebook.client.get_stdin_msg(timeout=TIMEOUT)["content"]
            prompts.append(question)
            notebook.client.input(answer)
        result = notebook.result(number)
        prompt = result.reply["execution_count"]
        assert all(content["execution_count"] == prompt for content in result.contents("execute_result"))
        seen.append((merged(result.messages), normal(result.reply), prompts))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("name", CELLS)
def test_cells(notebook: Notebook, name: str) -> None:
    """A cell sends the same messages, in the same order, with the same contents, and has the same reply."""
    compare(notebook, CELLS[name])


@pytest.mark.parametrize("name", OPTIONS)
def test_options(notebook: Notebook, name: str) -> None:
    """What an execute request asks for besides is obeyed alike."""
    compare(notebook, **OPTIONS[name])


@pytest.mark.parametrize("name", ASKING)
def test_asking(notebook: Notebook, name: str) -> None:
    """What asks for input asks with the same prompts and goes on with the answers."""
    code, answers = ASKING[name]
    if name == "post-mortem":
        for line in (HOME, NODE):
            notebook.run(f"{line}\ndef fails(value):\n    raise ValueError(value)\nfails(3)")
    compare(notebook, code, answers)


def test_magics_tell_of_cells(notebook: Notebook) -> None:
    """`In`, `Out` and `_` hold what the prompts of the notebook show."""
    for line in (HOME, NODE):
        number = notebook.run(f"{line}\n'remember me'").reply["execution_count"]
        assert notebook.run(f"{line}\nOut[{number}], _{number}, 'remember' in In[{number}]").value == "('remember me', 'remember me', True)"


@pytest.mark.parametrize("request_name", ["complete", "inspect"])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_questions(notebook: Notebook, request_name: str, busy: bool) -> None:
    """Completion and inspection give the same answers, positions included, whether or not the kernel runs a cell."""
    found = []
    for line in (HOME, NODE):
        notebook.run(f"{line}\ndef some_function(alpha, beta):\n    'does something'")
        number = None
        if busy:
            number = notebook.send(f"{line}\nprint('begun', flush=True)\nimport time; time.sleep(60)")
            notebook.printed(number, "begun")
        code = f"{line}\nsome_func" + ("tion" if request_name == "inspect" else "")
        content = notebook.knows(request_name, code)
        for item in (content, *content["metadata"].get("_jupyter_types_experimental", ())):
            item.update({key: item[key] - len(line) for key in ("cursor_start", "cursor_end", "start", "end") if key in item})
        found.append(normal(content))
        if number is not None:
            notebook.interrupt()
            assert notebook.result(number).reply["ename"] == "KeyboardInterrupt"
    assert found[0] == found[1]
    assert "some_function" in found[0]["matches"] if request_name == "complete" else found[0]["found"]


def test_history(notebook: Notebook) -> None:
    """History requests and `%history` know the cells of nodes as those of home, in order."""
    notebook.run(f"{HOME}\nfirst_of_history = 1")
    notebook.run(f"{NODE}\nsecond_of_history = 2")
    notebook.run(f"{NODE}\nsecret_of_history = 3", store_history=False)
    tail = notebook.reply(notebook.client.history(raw=True, hist_access_type="tail", n=2))["content"]["history"]
    assert [source for *_, source in tail] == [f"{HOME}\nfirst_of_history = 1", f"{NODE}\nsecond_of_history = 2"]
    found = notebook.reply(notebook.client.history(raw=True, hist_access_type="search", pattern="%%on*second_of_history = 2", n=1))
    assert found["content"]["history"][0][2] == f"{NODE}\nsecond_of_history = 2"
    text = notebook.run("%history -l 4").text()
    assert text.index("first_of_history") < text.index("second_of_history")
    assert "secret_of_history" not in text
