"""Background cells."""

from __future__ import annotations

import pytest

from .conftest import Notebook

pytestmark = pytest.mark.slow


UNTIL_OPEN = """
import os, pathlib, time
gate = pathlib.Path(os.environ["WARDIAN_RUN_DIR"], "GATE")
print("begun")
while not gate.exists():
    time.sleep(0.01)
"""


def row(notebook: Notebook, name: str) -> list[str]:
    """What `%jobs` says of one job."""
    return next(line.split() for line in notebook.run("%jobs").text().splitlines() if line.startswith(name))


def test_a_job_runs_beside_other_cells(notebook: Notebook) -> None:
    """A background cell returns at once, other places' cells run meanwhile, and waiting shows its whole output."""
    started = notebook.run(f"%%on server --bg as load\n{UNTIL_OPEN.replace('GATE', 'gate')}\nprint('ended')")
    assert started.status == "ok"
    assert "load │ running on server" in started.contents("display_data")[0]["data"]["text/plain"]
    assert notebook.run("1 + 1").value == "2"
    assert notebook.run("%%on client[0]\n2 + 2").value == "4"
    assert row(notebook, "load")[1:3] == ["server", "running"]
    (notebook.nodes / "server" / "gate").touch()
    waited = notebook.run("%wait load")
    assert waited.text().startswith("begun\nended\n")
    assert row(notebook, "load")[1:3] == ["server", "done"]


def test_the_view_is_updated_where_it_started(notebook: Notebook) -> None:
    """What a job prints is shown in the cell that started it, by an update of that cell's display."""
    started = notebook.run("%%on server --bg as seen\nprint('news')")
    display = started.contents("display_data")[0]["transient"]["display_id"]
    number = started.message["parent_header"]["msg_id"]
    updates = [content for content in started.contents("update_display_data") if "done" in content["data"]["text/plain"]]
    update = updates[0] if updates else notebook.until(
        number, lambda message: message["msg_type"] == "update_display_data" and "done" in message["content"]["data"]["text/plain"]
    )["content"]  # fmt: skip
    assert update["transient"]["display_id"] == display
    assert "news" in update["data"]["text/plain"]


def test_a_failed_job(notebook: Notebook) -> None:
    """Waiting for a job that failed raises, naming the job, the node and the reason."""
    notebook.run("%%on server --bg as broken\n1/0")
    waited = notebook.run("%wait broken")
    assert waited.reply["ename"] == "JobFailed"
    assert "broken failed on server: ZeroDivisionError" in waited.reply["evalue"]


def test_stop(notebook: Notebook) -> None:
    """`%stop` interrupts a job and keeps its kernel's variables."""
    notebook.run("%%on client\nkept = 1")
    notebook.run("%%on client --bg as endless\nimport time\nwhile True: time.sleep(0.1)")
    assert "interrupted" in notebook.run("%stop endless").text()
    assert "KeyboardInterrupt" in notebook.run("%wait endless").reply["evalue"]
    assert row(notebook, "endless")[1:3] == ["client[0:2]", "stopped"]
    assert notebook.run("%%on client\nprint(kept)").lanes == {"client[0]": "1\n", "client[1]": "1\n"}


def test_order_on_one_node(notebook: Notebook) -> None:
    """A cell for a node where a job runs waits for it, and interrupting that cell leaves the job alone."""
    notebook.run(f"%%on server --bg as first\n{UNTIL_OPEN.replace('GATE', 'second-gate')}\nfirst_done = True")
    number = notebook.send("%%on server\nfirst_done")
    notebook.until(number, lambda message: message["msg_type"] == "execute_input")
    notebook.interrupt()
    assert notebook.result(number).reply["ename"] == "KeyboardInterrupt"
    assert row(notebook, "first")[1:3] == ["server", "running"]
    waiting = notebook.send("%%on server\nfirst_done")
    (notebook.nodes / "server" / "second-gate").touch()
    assert notebook.result(waiting).value == "True"


def test_a_name_in_use(notebook: Notebook) -> None:
    """A second job of a running job's name is refused; an unknown name, and a wait that is too short, are errors."""
    notebook.run("%%on server --bg as twice\nimport time; time.sleep(30)")
    assert notebook.run("%%on client --bg as twice\n1").reply["ename"] == "JobError"
    assert "still runs" in notebook.run("%wait twice --timeout 0.05").reply["evalue"]
    assert "twice" in notebook.run("%wait nothing").reply["evalue"]
    notebook.run("%stop twice")
    notebook.run("%wait twice")


def test_interrupting_a_wait(notebook: Notebook) -> None:
    """Waiting can be interrupted, and the job goes on."""
    notebook.run("%%on server --bg as long\nimport time; time.sleep(30)")
    number = notebook.send("print('begun', flush=True)\nget_ipython().run_line_magic('wait', 'long')")
    notebook.printed(number, "begun")
    notebook.interrupt()
    assert notebook.result(number).reply["ename"] == "KeyboardInterrupt"
    assert row(notebook, "long")[2] == "running"
    notebook.run("%stop long")
    notebook.run("%wait long")
