"""The provider `openstack` where servers are virtual machines, run inside of it: `make test-openstack-full`."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import nbformat
import openstack
import pytest
from openstack_testbed.layout import Layout

from tests.stage import Stage
from wardian.providers.openstack import OpenStackSettings
from wardian.providers.testing import ProviderContract

from .kept import Kept

pytestmark = [pytest.mark.long, pytest.mark.root, pytest.mark.timeout(3600)]

SETTINGS: dict[str, Any] = {"cloud": "testbed", "image": "debian", "flavor": "small", "external": "public", "patience": "30min"}


@pytest.fixture(autouse=True)
def machines(layout: Layout) -> None:
    """A testbed that has them."""
    if not layout.full:
        (pytest.fail if os.environ.get("WARDIAN_REQUIRE_ALL") else pytest.skip)("needs `scripts/openstack-testbed --full start`")


class TestVirtualMachines(Kept, ProviderContract):
    """What is promised of resources and of commands, as far as no more than one machine has to be made anew for it."""

    settings = OpenStackSettings(**SETTINGS)


for _name in (
    "test_observe_during_create_never_raises",
    "test_a_cancelled_create_can_be_repeated",
    "test_a_cancelled_create_can_be_destroyed",
    "test_two_environments_do_not_see_each_other",
    "test_delete_removes_just_that",
    "test_delete_is_idempotent",
    "test_a_deleted_node_can_be_made_anew",
    "test_destroy_is_complete_and_repeatable",
    "test_notes_end_with_the_node",
    "test_a_stopped_node_is_observed_as_such",
    "test_garbage_collection_spares_what_lives",
    "test_a_command_on_a_node_that_dies_says_so",
    "test_nothing_starts_on_a_node_that_is_not_there",
    "test_a_paused_node_can_be_removed",
    "test_faults_of_what_is_gone",
    "test_a_killed_node",
):
    assert hasattr(ProviderContract, _name)
    setattr(TestVirtualMachines, _name, None)


def test_from_up_to_down(layout: Layout, stage: Stage) -> None:
    """Machines are reached through the bastion; cells run on them, links are shaped; one is kept as an image, and keeps its disk when it
    is booted anew; and nothing is left."""
    nodes = {"server": {"env": {"PLANT": "ivy"}}, "client": {"networks": {"lab": {"rate": "4mbit", "delay": "40ms"}}}}
    stage.write(json.dumps({"name": "NAME", "provider": "openstack", "settings": SETTINGS, "networks": ["lab"], "nodes": nodes}))
    stage.env |= {"OS_CLIENT_CONFIG_FILE": str(layout.clouds)}
    cloud = openstack.connect(cloud="testbed")
    try:
        stage.run("up", timeout=3000)
        out = stage.run("exec", "all", "--", "sh", "-c", "hostname; cloud-init status; cat /etc/machine-id", timeout=300).stdout
        assert out.count("status: done") == 2
        assert len(set(re.findall(r"\b[0-9a-f]{32}\b", out))) == 2
        out = stage.run("exec", "client", "--", "ping", "-c", "5", "server", timeout=300).stdout
        assert float(re.search(r"= ([\d.]+)/", out)[1]) >= 80  # type: ignore[index]
        assert "rate 4Mbit" in stage.run("exec", "client", "--", "tc", "qdisc", "show", timeout=300).stdout

        notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "wardian", "display_name": "Wardian"}})
        cells = (
            "%%on server\nimport os, socket\nprint(socket.gethostname(), os.environ['PLANT'])",
            "%%on all\nimport socket\nsocket.gethostname()",
        )
        notebook.cells += [nbformat.v4.new_code_cell(source) for source in cells]
        nbformat.write(notebook, stage.folder / "study.ipynb")
        stage.run("run", "study.ipynb", "-o", "out.ipynb", "--keep", timeout=1800)
        said = (stage.folder / "out.ipynb").read_text()
        assert "server ivy" in said
        assert "'client'" in said

        stage.run("exec", "client", "--", "sh", "-c", "echo moss > /root/kept; sync", timeout=300)
        stage.run("snapshot", "client", stage.name, timeout=1800)
        (image,) = cloud.image.images(name=stage.name)
        assert (image.status, image.size > 10**6) == ("active", True)
        stage.run("reboot", "client", timeout=1800)
        assert stage.run("exec", "client", "--", "cat", "/root/kept", timeout=300).stdout.strip().endswith("moss")
        assert "Nothing to do" in stage.run("up", timeout=600).stdout
    finally:
        for path in (stage.state / "openstack" / "environments").glob("*.json"):
            stage.run("down", path.stem, "--force", "--no-collect", timeout=600)
        for image in cloud.image.images(name=stage.name):
            cloud.image.delete_image(image.id)
    kinds = (cloud.compute.servers, cloud.compute.keypairs, cloud.network.networks, cloud.network.routers, cloud.network.security_groups)
    assert [item.name for kind in kinds for item in kind() if stage.name in item.name] == []
    assert [item.id for item in cloud.network.ips() if stage.name in item.description] == []
    assert {path.name for path in layout.machines.iterdir() if len(path.name) == 36} == set()
