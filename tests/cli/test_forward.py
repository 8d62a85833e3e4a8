"""`wardian forward`: a port of a node on this machine."""

from __future__ import annotations

import json
import signal
import urllib.request

import pytest

from ..stage import Stage

pytestmark = pytest.mark.root


def test_a_page_until_ctrl_c(grown: Stage) -> None:
    """`forward` prints where the node's server is now found, and ends, as asked to, with Ctrl-C."""
    with grown.start("forward", "server:8000") as process:
        assert process.stdout is not None
        node, arrow, address = process.stdout.readline().split()
        assert (node, arrow) == ("server:8000", "→")
        assert b"Directory listing" in urllib.request.urlopen(address).read()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address)


def test_several_nodes_as_json(grown: Stage) -> None:
    """From several nodes come several ports, which `--json` lists; one --port cannot be for all."""
    assert "leave out --port" in grown.error("forward", "client:80", "--port", "9000", code=3)
    assert "NODE:PORT" in grown.error("forward", "server", code=3)
    with grown.start("forward", "--json", "client:8000") as process:
        assert process.stdout is not None
        text = ""
        while not text.endswith("]\n"):
            text += process.stdout.readline()
        listed = json.loads(text)
        assert [item["node"] for item in listed] == ["client[0]", "client[1]"]
        assert len({item["here"] for item in listed}) == 2
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
