"""Inventories, placing and the command for a login shell, without any host."""

from __future__ import annotations

import random
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from wardian.errors import ExperimentFileError, PlanError
from wardian.experiment import file
from wardian.providers import registry
from wardian.providers.ssh import SshSettings, command, placing
from wardian.providers.ssh.inventory import Host, hosts

INI = """
# the lab
lab[01:03].example.org ansible_user=grower
gate ansible_host=192.0.2.1 ansible_port=2222

[gpu]
lab02.example.org ansible_ssh_private_key_file=keys/gpu
alone ansible_host=192.0.2.9 ansible_user=other ansible_python_interpreter=/opt/python/bin/python3

[cpu]
lab01.example.org
lab03.example.org

[compute:children]
gpu
cpu

[compute:vars]
ansible_user=common
ansible_ssh_common_args='-o ProxyJump=me@gate.example.org:2200'

[all:vars]
ansible_port=2022
"""

YAML = """
all:
  vars: {ansible_port: 2022}
  hosts:
    gate: {ansible_host: 192.0.2.1, ansible_port: 2222}
    lab[01:03].example.org: {ansible_user: grower}
  children:
    compute:
      vars:
        ansible_user: common
        ansible_ssh_common_args: -J me@gate.example.org:2200
      children:
        gpu:
          hosts:
            lab02.example.org: {ansible_ssh_private_key_file: keys/gpu}
            alone: {ansible_host: 192.0.2.9, ansible_user: other, ansible_python_interpreter: /opt/python/bin/python3}
        cpu:
          hosts:
            lab01.example.org:
            lab03.example.org:
"""


@pytest.mark.parametrize(("name", "text"), [("hosts.ini", INI), ("hosts.yaml", YAML)])
def test_ansible_inventories(tmp_path: Path, name: str, text: str) -> None:
    """Both forms of an Ansible inventory give the same hosts: ranges, groups as labels, variables of the nearest group first, bastions."""
    (tmp_path / "inventory").mkdir()
    (tmp_path / "inventory" / name).write_text(text)
    found = {host.name: host for host in hosts(SshSettings(inventory=Path("inventory", name)), tmp_path)}
    assert set(found) == {"lab01.example.org", "lab02.example.org", "lab03.example.org", "gate", "alone"}
    second, alone, gate = found["lab02.example.org"], found["alone"], found["gate"]
    assert (second.user, second.port, second.key) == ("grower", 2022, str(tmp_path / "inventory" / "keys/gpu"))
    assert set(second.labels) == {"gpu", "compute"}
    assert second.jump is not None
    assert (second.jump.user, second.jump.name, second.jump.port) == ("me", "gate.example.org", 2200)
    assert (alone.address, alone.user, alone.python) == ("192.0.2.9", "other", "/opt/python/bin/python3")
    assert (gate.address, gate.port, gate.jump, gate.labels) == ("192.0.2.1", 2222, None, ())


def test_hosts_of_the_settings(tmp_path: Path) -> None:
    """Hosts are names or mappings; a bastion is one of them or written out, several make a way; all of it can be written down."""
    settings = SshSettings.model_validate({
        "hosts": [
            "plain",
            {"name": "gate", "address": "192.0.2.1", "password_env": "GATE"},
            {"name": "deep", "jump": "gate,me@second:23", "labels": "gpu", "key": "id"},
        ],
        "known_hosts": "known",
    })  # fmt: skip
    plain, gate, deep = hosts(settings, tmp_path)
    assert (plain.name, plain.address, plain.user, plain.port) == ("plain", "", "", 0)
    assert plain.known_hosts == str(tmp_path / "known")
    assert deep.key == str(tmp_path / "id")
    assert deep.jump is not None
    assert (deep.jump.user, deep.jump.name, deep.jump.port, deep.jump.jump) == ("me", "second", 23, gate)
    assert Host.of_json(deep.to_json()) == deep


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[gpu\nlab", "is no section"),
        ("lab ansible_user='me", "No closing quotation"),
        ("lab ansible_port=many", "lab"),
        ("-oProxyCommand=evil", "does not begin with a dash"),
        ("lab[1:b]", "is no range"),
        ("[a:children]\nb\n[b:children]\na\n[a]\nlab", "child of itself"),
    ],
)
def test_wrong_inventories(tmp_path: Path, text: str, said: str) -> None:
    """What is wrong in an inventory is an error that names the file and what is wrong."""
    (tmp_path / "hosts.ini").write_text(text)
    with pytest.raises(PlanError, match=said) as caught:
        hosts(SshSettings(inventory=Path("hosts.ini")), tmp_path)
    assert "hosts.ini" in caught.value.message


def test_inventories_that_cannot_be_read(tmp_path: Path) -> None:
    """An inventory that is not there, is no YAML or no mapping, or lists a host twice, is an error that says so."""
    (tmp_path / "bad.yaml").write_text("all: [")
    (tmp_path / "list.yaml").write_text("all: {hosts: [a, b]}")
    (tmp_path / "twice.ini").write_text("lab\n")
    for settings, said in (
        ({"inventory": "none.ini"}, "cannot be read"),
        ({"inventory": "bad.yaml"}, "is no YAML"),
        ({"inventory": "list.yaml"}, "stands for a mapping"),
        ({"inventory": "twice.ini", "hosts": ["lab"]}, "listed twice"),
    ):
        with pytest.raises(PlanError, match=said):
            hosts(SshSettings.model_validate(settings), tmp_path)


@pytest.mark.parametrize("name", ["-oProxyCommand=touch", "a b", "", "a\nb"])
def test_names_that_would_be_options(name: str) -> None:
    """What would be an option to `ssh`, or more than one word, is no name of a host, user or bastion."""
    for settings in ({"hosts": [name]}, {"hosts": [{"name": "a", "user": name}]}, {"hosts": [{"name": "a", "jump": name}]}):
        with pytest.raises(ValidationError):
            SshSettings.model_validate(settings)


def test_settings_are_checked_with_the_file() -> None:
    """A wrong setting of the provider is a problem of the experiment file, at its line."""
    text = "name: lab\nprovider: ssh\nsettings:\n  hosts:\n    - {name: a, prot: 22}\nnodes: [box]\n"
    with pytest.raises(ExperimentFileError) as caught:
        file.loads(text, "experiment.yaml", {}, registry.settings_models())
    assert "prot" in caught.value.problems[0].field
    assert caught.value.problems[0].line == 5


# Placing


def specs(**roles: str) -> dict[str, dict[str, Any]]:
    """{node: spec}, each with the roles given as text."""
    return {
        name.replace("_", "[") + "]" * ("_" in name): {"group": name.partition("_")[0], "roles": text.split()}
        for name, text in roles.items()
    }


def place(
    nodes: Mapping[str, Mapping[str, Any]], listed: Sequence[Host], words: Mapping[str, Sequence[str]], **others: Any
) -> dict[str, str]:
    return placing.match(placing.wishes(nodes, listed, words), others.get("taken", ()), others.get("unusable", {}))


def test_hosts_are_given_in_order() -> None:
    """Without wishes, nodes get the hosts in the order in which those are listed."""
    listed = [Host(name) for name in "abc"]
    assert place(specs(server="", client_0="", client_1=""), listed, {}) == {"server": "a", "client[0]": "b", "client[1]": "c"}


def test_a_node_its_group_and_its_role() -> None:
    """A node's own wish counts before its group's, and that before those of its roles; labels and names of hosts are alike."""
    listed = [Host("a"), Host("b", labels=("gpu",)), Host("c", labels=("gpu",)), Host("d", labels=("big",))]
    nodes = specs(client_0="plant", client_1="plant", server="plant")
    words = {"client[0]": ["d"], "client": ["gpu"], "plant": ["a"]}
    assert place(nodes, listed, words) == {"client[0]": "d", "client[1]": "b", "server": "a"}


def test_makes_room() -> None:
    """A node that could be anywhere makes room for one that can only be in one place."""
    listed = [Host("a", labels=("gpu",)), Host("b")]
    assert place(specs(first="", second=""), listed, {"second": ["gpu"]}) == {"first": "b", "second": "a"}


def test_too_few_for_a_wish() -> None:
    """When hosts of a kind do not suffice, the error says how many nodes need one, what it is, how many there are, and why not others."""
    listed = [Host("a", labels=("gpu",)), Host("b", labels=("gpu",)), Host("c")]
    with pytest.raises(PlanError) as caught:
        place(specs(client_0="", client_1="", server=""), listed, {"client": ["gpu"]}, unusable={"b": "Connection refused"})
    assert caught.value.message == ("too few hosts: 2 nodes need a host each that is gpu, and 1 can be had (a); not b: Connection refused")


def test_a_word_that_names_nothing() -> None:
    """A label that no host has is an error that lists those there are."""
    with pytest.raises(PlanError, match="no host is called or labelled 'gpus'") as caught:
        place(specs(server=""), [Host("a", labels=("gpu",))], {"server": ["gpus"]})
    assert "a, gpu" in str(caught.value.remedy)


@given(st.integers(0, 2**32))
def test_a_place_is_found_whenever_there_is_one(seed: int) -> None:
    """Wherever some assignment satisfies all wishes, one is found: each node on a host that fits, no host twice."""
    chance = random.Random(seed)
    count = chance.randint(1, 7)
    listed = [Host(f"h{number}", labels=(f"n{chance.randrange(count)}",)) for number in range(count)]
    order = chance.sample(range(count), count)
    nodes = specs(**{f"n{position}": "" for position in range(count)})
    words = {f"n{position}": sorted({f"h{order[position]}", f"h{chance.randrange(count)}"}) for position in range(count)}
    placed = place(nodes, listed, words)
    assert sorted(placed.values()) == sorted(host.name for host in listed)
    assert all(host in words[node] for node, host in placed.items())


# The command


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))), st.booleans())
def test_a_script_keeps_its_arguments(arguments: list[str], multiline: bool) -> None:
    """A script that a login shell is given sees the very arguments that it was given."""
    text = command.script('printf "%s\\0" "$@"' + "\n" * multiline, ["first", *arguments], "token")
    done = subprocess.run(["/bin/sh", "-c", command.for_login_shell(text)], capture_output=True, check=True)
    assert done.stdout == b"token\n" + b"".join(argument.encode() + b"\0" for argument in ["first", *arguments])


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_nothing_that_a_shell_may_read_otherwise(text: str) -> None:
    """The string for a login shell has no character that shells read in different ways between single quotes."""
    whole = command.for_login_shell(f"echo {shlex.quote(text)}")
    assert whole.isascii()
    assert not set("!\n\r\t") & set(whole)
    assert "\\\\" not in whole
