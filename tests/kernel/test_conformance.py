"""The kernel behaves as a stock ipykernel, at home and on a node: the field's own test suite says so."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

import jupyter_kernel_test
import pytest

from .conftest import NODES, Notebook, _stop_agents, write_nodes

pytestmark = pytest.mark.slow


class TestHome(jupyter_kernel_test.KernelTests):
    """Every request of the protocol, answered at home through the router."""

    kernel_name = "wardian"
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples = [{"text": "zi", "matches": {"zip"}}]  # noqa: RUF012
    complete_code_samples = ["1", "print('hello, world')", "def f(x):\n  return x*2\n\n\n"]  # noqa: RUF012
    incomplete_code_samples = ["print('''hello", "def f(x):\n  x*2"]  # noqa: RUF012
    invalid_code_samples = ["import = 7q"]  # noqa: RUF012
    code_page_something = "zip?"
    code_generate_error = "raise"
    code_execute_result = [{"code": "1+2+3", "result": "6"}, {"code": "[n*n for n in range(1, 4)]", "result": "[1, 4, 9]"}]  # noqa: RUF012
    code_display_data = [  # noqa: RUF012
        {"code": "from IPython.display import HTML, display; display(HTML('<b>test</b>'))", "mime": "text/html"},
        {"code": "from IPython.display import Math, display; display(Math('\\frac{1}{2}'))", "mime": "text/latex"},
    ]
    code_history_pattern = "1?2*"
    supported_history_operations = ("tail", "search")
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"


class TestOnNode(TestHome):
    """The same, with every cell on a node."""

    nodes: Path
    notebook: Notebook

    @classmethod
    def setUpClass(cls) -> None:
        cls.nodes = Path(tempfile.mkdtemp(prefix="wk", dir="/tmp"))
        write_nodes(cls.nodes, NODES)
        cls.notebook = Notebook(cls.nodes, "conformance")
        cls.km, cls.kc = cls.notebook.manager, cls.notebook.client
        assert cls.notebook.run("%on server").status == "ok"

    @classmethod
    def tearDownClass(cls) -> None:
        cls.notebook.close()
        asyncio.run(_stop_agents(cls.nodes))
        shutil.rmtree(cls.nodes, ignore_errors=True)

    def test_it_is_the_node(self) -> None:
        """The cells of this suite run on the node."""
        self.flush_channels()
        _, output = self.execute_helper(code="import os; print(os.environ['WARDIAN_TEST_NODE'])")
        assert [message["content"]["text"] for message in output if message["msg_type"] == "stream"] == ["server\n"]


class TestWelcome(jupyter_kernel_test.IopubWelcomeTests):
    """A client that subscribes is told so."""

    kernel_name = "wardian"
    support_iopub_welcome = True
