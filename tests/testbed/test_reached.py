"""A whole experiment on the testbed: its cloud is real, and behind its servers are machines that can be logged in to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import openstack
import pytest
from openstack_testbed.layout import Layout

from tests.stage import Stage, eventually
from tests.testbed.machines import Servers

pytestmark = [pytest.mark.long, pytest.mark.root, pytest.mark.timeout(1800)]

EXPERIMENT = {
    "name": "NAME",
    "provider": "openstack",
    "networks": ["lab"],
    "nodes": {"server": {"env": {"PLANT": "ivy"}}, "client": {"memory": "1GiB"}},
}


@pytest.fixture
def servers(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    """Machines behind the testbed's servers."""
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(layout.clouds))
    made = Servers()
    try:
        yield made
    finally:
        made.close()


def test_from_up_to_down(servers: Servers, stage: Stage) -> None:
    """Nodes are reached through the bastion alone, by keys known before; cells run there, links are shaped, and nothing is left."""
    settings = {"cloud": "testbed", "image": "tiny", "external": "public", "ssh": str(servers.ssh), "patience": "600s"}
    links: dict[str, Any] = {"nodes": {**EXPERIMENT["nodes"], "client": {"networks": {"lab": {"rate": "7mbit"}}}}}
    stage.write(json.dumps({**EXPERIMENT, **links, "settings": settings}))
    stage.env |= {"OS_CLIENT_CONFIG_FILE": os.environ["OS_CLIENT_CONFIG_FILE"], "XDG_RUNTIME_DIR": str(servers.runtime)}
    servers.follow(stage.name)
    try:
        stage.run("up", timeout=900)
        assert servers.error is None
        booted = (servers.root / "booted").read_text()
        assert {"server status --wait", "client status --wait"} <= set(booted.splitlines())
        out = stage.run("exec", "client", "--", "sh", "-c", "hostname; ping -c 1 -W 5 server; id -un", timeout=120).stdout
        assert "client" in out
        assert "1 received" in out
        assert "root" in out
        assert "rate 7Mbit" in servers.machines["client"].run("tc qdisc show")
        notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "wardian", "display_name": "Wardian"}})
        notebook.cells.append(nbformat.v4.new_code_cell("%%on server\nimport os, socket\nprint(socket.gethostname(), os.environ['PLANT'])"))
        nbformat.write(notebook, stage.folder / "study.ipynb")
        stage.run("run", "study.ipynb", "-o", "out.ipynb", "--keep", timeout=300)
        assert "server ivy" in Path(stage.folder / "out.ipynb").read_text()
        assert "Nothing to do" in stage.run("up", timeout=120).stdout
    finally:
        for path in (stage.state / "openstack" / "environments").glob("*.json"):
            stage.run("down", path.stem, "--force", "--no-collect", timeout=600)
    eventually(lambda: not servers.machines, "no server is left", within=120)
    cloud = openstack.connect(cloud="testbed")
    kinds = (cloud.compute.servers, cloud.compute.keypairs, cloud.network.networks, cloud.network.routers, cloud.network.security_groups)
    assert [item.name for kind in kinds for item in kind() if stage.name in item.name] == []
    assert [item.id for item in cloud.network.ips() if stage.name in item.description] == []
    for place in ("environments", "keys", "known"):
        assert list((stage.state / "openstack" / place).glob("*")) == []
