"""The connection to the agent: it ends and comes back without losing anything, and says why it ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from wardian.errors import AgentError, NodeDownError, NodeError
from wardian.nodes.link import AgentLink

from .conftest import HostChannel, Kernel
from .test_agent import gone, until


def numbers(kernel: Kernel) -> list[int]:
    return [number for number, _, _ in kernel.messages]


def lines(*kernels: Kernel) -> str:
    """The standard output in all the messages of some kernels' views."""
    messages = [message for kernel in kernels for _, _, message in kernel.messages]
    return "".join(message["content"]["text"] for message in messages if message["header"]["msg_type"] == "stream")


def idle(kernel: Kernel, number: str) -> bool:
    """Whether a kernel's view has the end of a request."""
    messages = [message for _, _, message in kernel.messages if message["parent"].get("msg_id") == number]
    return any(message["content"].get("execution_state") == "idle" for message in messages)


async def cut(channel: HostChannel, link: AgentLink) -> None:
    """Kill the process that carries a link, as a lost network would end it."""
    assert channel.last
    await channel.last.signal(signal.SIGKILL)
    await asyncio.wait([link.closed])


async def test_one_agent_serves_every_link(run_directory: str) -> None:
    """Links opened at once, by several clients, reach one agent."""
    links = await asyncio.gather(*(AgentLink.open(HostChannel(run_directory), "host") for _ in range(5)))
    assert len({link.agent["pid"] for link in links}) == 1
    await asyncio.gather(*(link.close() for link in links))
    assert all(link.closed.done() and link.closed.exception() is None for link in links)


STREAMS = {
    "bash": "for ((i = 0; i < 60000; i++)); do echo $i; ((i % 1000)) || sleep 0.01; done",
    "python": "import time\nfor i in range(60000):\n    print(i)\n    if i % 1000 == 0: time.sleep(0.01)",
}


@pytest.mark.parametrize("language", ["bash", "python"])
async def test_reconnection_resumes_exactly(channel: HostChannel, language: str) -> None:
    """A link that is cut amid a stream is taken up where it ended: no message twice, none lost."""
    views: list[Kernel] = []
    number, last, cuts = "", 0, 0
    while True:
        link = await AgentLink.open(channel, "host", client="one")
        kernel = Kernel(link, "k")
        views.append(kernel)
        await link.request("kernel.start", kernel="k", language=language)
        assert (await link.request("kernel.attach", kernel="k", after=last))["next"] == last + 1
        number = number or kernel.execute(STREAMS[language])
        await kernel.until(
            lambda kernel=kernel, last=last, number=number: idle(kernel, number) or any(n > last + 5 for n in numbers(kernel))
        )
        if not idle(kernel, number):
            await cut(channel, link)
            cuts += 1
            last = max(numbers(kernel))
        # the end may have come before the cut
        if idle(kernel, number):
            break
        await link.close()
    assert cuts
    assert [number for view in views for number in numbers(view)] == list(range(1, numbers(views[-1])[-1] + 1))
    assert lines(*views) == "".join(f"{i}\n" for i in range(60_000))
    await link.close()


async def test_a_kernel_runs_on_while_nobody_is_there(channel: HostChannel, tmp_path: Path) -> None:
    """Closing the link leaves the kernel at work; its output waits for whoever attaches next."""
    alone = tmp_path / "alone"
    link = await AgentLink.open(channel, "host")
    kernel = await Kernel.start(link, "k", "bash")
    kernel.execute(f"echo before; until [ -e {alone} ]; do sleep 0.01; done; echo after; touch {alone}.over")
    await kernel.until(lambda: "before" in lines(kernel))
    last = numbers(kernel)[-1]
    await link.close()
    alone.touch()
    await until(Path(f"{alone}.over").exists)
    link = await AgentLink.open(channel, "host")
    later = Kernel(link, "k")
    await link.request("kernel.attach", kernel="k", after=last)
    await later.until(lambda: "after" in lines(later))
    assert "before" not in lines(later)
    await link.close()


async def test_what_is_not_acknowledged_is_sent_again(channel: HostChannel) -> None:
    """Attaching without a number goes on after the last acknowledgement, not after the last message sent."""
    link = await AgentLink.open(channel, "host")
    kernel = await Kernel.start(link, "k", "bash")
    kernel.acknowledge = False
    await kernel.run("echo one")
    await link.close()
    link = await AgentLink.open(channel, "host")
    again = Kernel(link, "k")
    assert (await link.request("kernel.attach", kernel="k", after=None))["next"] == 1
    await again.until(lambda: len(again.messages) >= len(kernel.messages))
    assert again.messages[: len(kernel.messages)] == kernel.messages
    await link.close()


async def test_the_window_holds_back_a_client_that_does_not_acknowledge(link: AgentLink) -> None:
    """No more than the window is under way unacknowledged; an acknowledgement brings the rest, complete."""
    kernel = await Kernel.start(link, "k", "bash")
    kernel.acknowledge = False
    number = kernel.execute("yes 0123456789 | head -c 30000000; echo; echo end")
    await kernel.until(lambda: len(lines(kernel)) > 6_000_000)
    assert (await link.request("kernel.list"))["kernels"]["k"]["attached"]
    await asyncio.sleep(0.5)
    assert 6_000_000 < len(lines(kernel)) <= 8 << 20
    kernel.acknowledge = True
    link.acknowledge("k", numbers(kernel)[-1])
    result = await kernel.result(number)
    assert result.text() == "0123456789\n" * (30_000_000 // 11) + "0123456789\n"[: 30_000_000 % 11] + "\nend\n"


async def test_past_the_quota_the_middle_is_dropped_with_its_mark(run_directory: str) -> None:
    """With the node's store full, the end of the output and the reply still come, and the mark counts what is missing."""
    link = await AgentLink.open(HostChannel(run_directory, WARDIAN_SPOOL_LIMIT="1000000"), "host")
    kernel = await Kernel.start(link, "k", "bash")
    await kernel.run("true")
    kernel.acknowledge = False
    last = numbers(kernel)[-1]
    number = kernel.execute(f"seq 1 6000000; touch {run_directory}/done")
    await link.drain()
    await kernel.until(lambda: len(kernel.messages) > 8)
    await link.close()
    await until(lambda: os.path.exists(f"{run_directory}/done"), 60)
    link = await AgentLink.open(HostChannel(run_directory), "host")
    later = Kernel(link, "k")
    dropped = (await link.request("kernel.attach", kernel="k", after=last))["dropped"]
    result = await later.result(number, 60)
    assert dropped > 0
    assert f"[{dropped} messages" in result.text("stderr")
    assert result.text().endswith("5999999\n6000000\n")
    assert result.text().startswith("1\n2\n3\n")
    await link.close()


async def test_taking_over_and_stopping_are_told(run_directory: str) -> None:
    """A kernel that another client attaches sends its messages there, and who had it hears of that, as when another stops it."""
    first = await AgentLink.open(HostChannel(run_directory), "host", client="first")
    second = await AgentLink.open(HostChannel(run_directory), "host", client="second")
    one = await Kernel.start(first, "k", "bash")
    await one.run("x=5")
    two = await Kernel.start(second, "k", "bash")
    await one.until(lambda: one.events)
    assert one.events == [{"event": "kernel.taken", "kernel": "k", "by": "second"}]
    seen = len(one.messages)
    assert (await two.run("echo $x")).text() == "5\n"
    assert len(one.messages) == seen
    await first.request("kernel.stop", kernel="k")
    await two.until(lambda: two.events)
    assert two.events == [{"event": "kernel.stopped", "kernel": "k", "by": "first"}]
    await first.close()
    await second.close()


async def test_two_clients_do_not_disturb_each_other(run_directory: str) -> None:
    """Each client has its kernels; a flood to one does not hold up the other."""
    first = await AgentLink.open(HostChannel(run_directory), "host")
    second = await AgentLink.open(HostChannel(run_directory), "host")
    one, two = await Kernel.start(first, "one", "bash"), await Kernel.start(second, "two", "bash")
    one.acknowledge = False
    flood = one.execute("yes")
    await one.until(lambda: len(one.messages) > 5)
    assert (await two.run("echo through")).text() == "through\n"
    one.acknowledge = True
    first.acknowledge("one", numbers(one)[-1])
    await first.request("kernel.interrupt", kernel="one")
    assert (await one.result(flood, 60)).reply["ename"] == "KeyboardInterrupt"
    await first.close()
    await second.close()


async def test_an_input_that_is_sent_again_counts_once(channel: HostChannel) -> None:
    """The agent says how many inputs of a client it had, over reconnections, and ignores one that it has."""
    link = await AgentLink.open(channel, "host", client="one")
    kernel = await Kernel.start(link, "k", "bash")
    await kernel.run("n=$((n + 1))")
    await link.close()
    link = await AgentLink.open(channel, "host", client="one")
    assert link.agent["inputs"] == 1
    link._inputs = 0
    kernel = await Kernel.start(link, "k", "bash")
    kernel.execute("n=$((n + 1))")
    assert (await kernel.run("echo $n")).text() == "1\n"
    await link.close()


async def test_a_killed_agent_takes_its_kernels_along(channel: HostChannel) -> None:
    """SIGKILL of the agent ends its kernels, fails what is pending at once, and the next link finds a clean one."""
    link = await AgentLink.open(channel, "host")
    await link.request("kernel.start", kernel="p", language="python")
    kernel = await Kernel.start(link, "b", "bash")
    result = await kernel.run("(sleep 600 & echo $!)")
    await link.request("service.start", service="s", command=["sleep", "600"], ready={"log": "never"})
    pids = [item["pid"] for item in (await link.request("kernel.list"))["kernels"].values()]
    pids.append((await link.request("service.list"))["services"]["s"]["pid"])
    pending = asyncio.create_task(link.request("service.wait", service="s", timeout=600))
    await asyncio.sleep(0)
    os.kill(link.agent["pid"], signal.SIGKILL)
    with pytest.raises(AgentError, match="the agent ended"):
        await asyncio.wait_for(pending, 10)
    assert isinstance(link.closed.exception(), AgentError)
    with pytest.raises(AgentError):
        await link.request("kernel.list")
    await until(lambda: all(gone(pid) for pid in pids))
    await link.close()
    link = await AgentLink.open(channel, "host")
    assert (await link.request("kernel.list"))["kernels"] == {}
    await until(lambda: gone(int(result.text())))
    await link.close()


async def test_a_cut_connection_is_a_node_that_is_down(channel: HostChannel) -> None:
    """When the carrying process is killed, pending requests fail at once with NodeDownError, and `closed` says so."""
    link = await AgentLink.open(channel, "host")
    await link.request("service.start", service="s", command=["sleep", "600"], ready={"log": "never"})
    pending = asyncio.create_task(link.request("service.wait", service="s", timeout=600))
    await asyncio.sleep(0)
    await cut(channel, link)
    with pytest.raises(NodeDownError):
        await asyncio.wait_for(pending, 10)
    assert isinstance(link.closed.exception(), NodeDownError)
    await link.close()


async def test_stopping_the_agent_leaves_nothing(channel: HostChannel, run_directory: str) -> None:
    """`agent.stop` ends kernels and services, and the agent; the next link starts another."""
    link = await AgentLink.open(channel, "host")
    kernel = await Kernel.start(link, "b", "bash")
    child = int((await kernel.run("sleep 600 & echo $!")).text())
    await link.request("service.start", service="s", command=["sleep", "600"])
    service = (await link.request("service.list"))["services"]["s"]["pid"]
    await link.request("agent.stop")
    await until(lambda: gone(link.agent["pid"]))
    assert gone(child)
    assert gone(service)
    assert os.listdir(Path(run_directory) / "kernels") == os.listdir(Path(run_directory) / "sessions") == []
    await link.close()
    other = await AgentLink.open(channel, "host")
    assert other.agent["pid"] != link.agent["pid"]
    await other.close()


@pytest.mark.parametrize(
    "junk", [b"\xff" * 64, b"\0\0\0\0", b"\0\0\0\x02\x01{", b"\0\0\0\x03\x04ab", b"\0\0\0\x05\x03abcd", b"\0\0\0\x03\x01[]"]
)
async def test_junk_ends_its_connection_only(channel: HostChannel, run_directory: str, junk: bytes) -> None:
    """What is no frame ends that connection with the reason; kernels and other clients do not notice."""
    good = await AgentLink.open(HostChannel(run_directory), "host")
    kernel = await Kernel.start(good, "k", "bash")
    bad = await AgentLink.open(channel, "host")
    bad._writer.write(junk)
    await asyncio.wait([bad.closed], timeout=10)
    assert isinstance(bad.closed.exception(), AgentError)
    await bad.close()
    assert (await kernel.run("echo fine")).text() == "fine\n"
    await good.close()


async def test_malformed_jupyter_messages_are_ignored(link: AgentLink) -> None:
    """A message whose parts are no JSON does not disturb the kernel that gets it."""
    for language in ("bash", "python"):
        await link.request("kernel.start", kernel=language, language=language)
        for parts in (
            [b"", b"", b"", b""],
            [b"{}", b"{}", b"{}", b"{}"],
            [b"[]", b"1", b"null", b'"x"'],
            [b'{"msg_type": 1}', b"{}", b"{}", b"{}"],
        ):
            for channel in ("shell", "control", "stdin", "iopub"):
                link.send(language, channel, parts)
    for language in ("bash", "python"):
        kernel = await Kernel.start(link, language, language)
        assert (await kernel.run("echo 5" if language == "bash" else "print(5)")).text() == "5\n"


async def test_no_python_says_what_to_do(run_directory: str) -> None:
    """A node without any of the interpreters gives an error that names them."""
    with pytest.raises(AgentError, match="no Python was found there; looked for /no/such, nor-this") as caught:
        await AgentLink.open(HostChannel(run_directory), "host", pythons=["/no/such", "nor-this"])
    assert caught.value.remedy


async def test_a_start_that_fails_shows_the_nodes_words(tmp_path: Path) -> None:
    """When the agent cannot start, the error carries what was said on the node."""
    (tmp_path / "run").mkdir(mode=0o755)
    (tmp_path / "run").chmod(0o777)
    with pytest.raises(NodeError, match="only user"):
        await AgentLink.open(HostChannel(str(tmp_path / "run")), "host")


async def test_a_wrong_handler_ends_the_link_with_its_reason(link: AgentLink) -> None:
    """A handler that raises does not leave others waiting: the link ends and says what happened."""

    def fail(event: dict[str, Any]) -> None:
        raise KeyError("what the handler missed")

    link.on_event = fail
    link.send("nobody", "shell", [json.dumps({}).encode()] * 4)
    await asyncio.wait([link.closed], timeout=10)
    assert "what the handler missed" in str(link.closed.exception())


async def test_attaching_tells_what_runs(run_directory: str) -> None:
    """Whoever attaches a kernel learns its store, where its messages end, and which cells it has not answered."""
    first = await AgentLink.open(HostChannel(run_directory), "host")
    kernel = await Kernel.start(first, "k", "bash")
    running, waiting = kernel.execute("echo begun; sleep 60", stop_on_error=False), kernel.execute("true")
    await kernel.says(running, "begun\n")
    second = await AgentLink.open(HostChannel(run_directory), "host")
    later = Kernel(second, "k")
    answer = await second.request("kernel.attach", kernel="k", after=None)
    assert answer["executing"] == [running, waiting]
    assert answer["end"] >= numbers(kernel)[-1]
    assert answer["store"] == (await first.request("kernel.list"))["kernels"]["k"]["store"]
    await second.request("kernel.interrupt", kernel="k")
    await later.result(waiting)
    assert (await second.request("kernel.attach", kernel="k", after=None))["executing"] == []
    await first.close()
    await second.close()


async def test_output_is_kept_on_the_node(link: AgentLink) -> None:
    """What a cell printed can be fetched again after it was acknowledged, whole, also when later cells have run."""
    kernel = await Kernel.start(link, "k", "bash")
    cell = kernel.execute("seq 1 300000; echo ä")
    text = (await kernel.result(cell)).text()
    await kernel.run("echo short")
    found = b""
    while True:
        answer = await link.request("kernel.output", kernel="k", cell=cell, offset=len(found))
        found += answer["text"].encode("latin-1")
        if len(found) >= answer["kept"]:
            break
    assert answer["lost"] == 0
    assert found.decode() == text
    with pytest.raises(AgentError, match="not kept"):
        await link.request("kernel.output", kernel="k", cell="nothing", offset=0)


async def test_a_long_stream_message_is_divided(link: AgentLink) -> None:
    """What a Python kernel gathers into one huge message arrives in pieces that no reader chokes on, complete."""
    kernel = await Kernel.start(link, "k", "python")
    result = await kernel.run("print('0123456789' * 8_000_000)", 60)
    pieces = [content["text"] for _, kind, content in result.messages if kind == "stream"]
    assert max(map(len, pieces)) <= 2 << 20
    assert "".join(pieces) == "0123456789" * 8_000_000 + "\n"


async def test_a_paused_link_reads_nothing(link: AgentLink) -> None:
    """While a link is paused what the agent sends waits there; then it comes complete."""
    kernel = await Kernel.start(link, "k", "bash")
    cell = kernel.execute("seq 1 2000000")
    await kernel.until(lambda: lines(kernel))
    link.pause()
    seen = len(kernel.messages)
    with pytest.raises(TimeoutError):
        await kernel.result(cell, 0.5)
    assert len(kernel.messages) - seen < 64
    link.resume()
    assert (await kernel.result(cell)).text() == "".join(f"{number}\n" for number in range(1, 2_000_001))
