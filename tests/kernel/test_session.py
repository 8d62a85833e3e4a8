"""The life of a kernel: what outlives it, what ends with it, and what it leaves in the journal."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from wardian.journal import Journal

from .conftest import ROOT, Notebook

pytestmark = pytest.mark.slow


def alive(process: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


def test_a_killed_router_is_replaced(start: Callable[..., Notebook]) -> None:
    """After SIGKILL of the router its home kernel is gone, and a new kernel of the same notebook finds the nodes' variables."""
    first = start("killed")
    first.run("%%on client\nkept = 'still here'")
    first.run("%%on server --lang bash\nKEPT=yes")
    home = int(first.run("import os; os.getpid()").value)
    pidfd = os.pidfd_open(home)
    first.kill()
    wait_for(pidfd)
    assert not alive(home)
    second = start("killed")
    assert second.run("%%on client\nprint(kept)").lanes == {"client[0]": "still here\n", "client[1]": "still here\n"}
    assert second.run("%%on server --lang bash\necho $KEPT").text() == "yes\n"


def wait_for(pidfd: int) -> None:
    """Wait for the end of a process that is not our child."""
    import select

    readable, _, _ = select.select([pidfd], [], [], 30)
    os.close(pidfd)
    assert readable


def test_a_home_kernel_that_does_not_welcome(start: Callable[..., Notebook], tmp_path: Path) -> None:
    """Cells run at home also when ipykernel has lost the notice of our subscription, which it does when it publishes just then."""
    lost = "import ipykernel.iostream\nipykernel.iostream.IOPubThread._handle_subscription = lambda self, frames: None\n"
    (tmp_path / "sitecustomize.py").write_text(lost)
    own = start("unwelcome", PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert own.run("print('heard')").text() == "heard\n"


def test_other_notebooks_have_other_kernels(start: Callable[..., Notebook]) -> None:
    """Two notebooks on one environment do not share variables."""
    one, other = start("one"), start("other")
    one.run("%%on server\nmine = 1")
    assert other.run("%%on server\nmine").error.startswith("NameError")


def test_a_restart_starts_anew(start: Callable[..., Notebook]) -> None:
    """A restart that the user asks for forgets the nodes' variables as well as home's."""
    own = start("restarted")
    own.run("%%on server\nkept = 1")
    own.run("kept = 1")
    own.manager.restart_kernel()
    own.client.wait_for_ready(timeout=60)
    assert own.run("%%on server\nkept").error.startswith("NameError")
    assert own.run("kept").error.startswith("NameError")


def test_a_shutdown_leaves_nothing(start: Callable[..., Notebook]) -> None:
    """Shutting down ends home, the nodes' kernels of this notebook, and the private folder."""
    own = start("ending")
    home = int(own.run("import os; os.getpid()").value)
    on_node = int(own.run("%%on server\nimport os; os.getpid()").value)
    folder = Path(own.run("print(os.environ['WARDIAN_KERNEL_SOCKET'])").text().strip()).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "router").stat().st_mode & 0o777 == 0o600
    own.close()
    assert not alive(home)
    assert not alive(on_node)
    assert not folder.exists()


def test_cells_are_recorded(start: Callable[..., Notebook], tmp_path: Path) -> None:
    """Each cell is in the journal with its nodes, its output by node and how it ended."""
    path = tmp_path / ".wardian" / "journal.db"
    own = start("recorded", WARDIAN_TEST_JOURNAL=str(path))
    own.run("print('at home')", {"cellId": "c1"})
    own.run("%%on client\nprint('there')")
    own.run("%%on server\n1/0")
    own.close()
    with Journal.open(path) as journal:
        home, fan, failed = journal.entries(kinds=["cell"])
    text = repr((home, fan, failed))
    assert home.status == "ok"
    assert "c1" in text
    assert fan.status == "ok"
    assert "client[1]" in repr(fan)
    assert failed.status == "failed"
    assert "ZeroDivisionError" in repr(failed)


def test_a_journal_that_cannot_be_written(start: Callable[..., Notebook], tmp_path: Path) -> None:
    """A journal that cannot be opened fails no cell."""
    (tmp_path / "journal.db").mkdir()
    own = start("unrecorded", WARDIAN_TEST_JOURNAL=str(tmp_path / "journal.db"))
    assert own.run("1 + 1").value == "2"
    assert own.run("%%on server\n2 + 2").value == "4"
