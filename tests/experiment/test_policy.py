"""Policies: what is read from them, whom they bind, and what an experiment takes of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from wardian.errors import ExperimentFileError, PlanError
from wardian.experiment import policy
from wardian.experiment.policy import Held, Limit
from wardian.experiment.resources import Resource

TEXT = """
default: {nodes: 10, memory: 4GiB, lease: 4h}
groups:
  staff: {nodes: 100}
  tutors: {nodes: 20, memory: 8GiB}
users:
  ada: {nodes: 5}
"""


def desired(*memory: int | None, lease: float | None = 3600.0) -> list[Resource]:
    """An environment with nodes that have these memory limits."""
    environment: dict[str, Any] = {"lease": {"duration": lease, "at_end": "down"} if lease else None}
    nodes = [Resource("node", f"client[{number}]", {"memory": limit}) for number, limit in enumerate(memory)]
    return [Resource("environment", "lab", environment), *nodes]


def test_the_nearest_entry_counts() -> None:
    """Field by field a user's own entry counts, else the most of his groups, else the default."""
    read = policy.loads(TEXT, "policy.yaml")
    assert policy.limits(read, "bob", ["staff", "tutors"]) == {
        "nodes": Limit(100, "groups.staff.nodes"),
        "memory": Limit(8 << 30, "groups.tutors.memory"),
        "lease": Limit(14400.0, "default.lease"),
    }
    assert policy.limits(read, "ada", ["staff"])["nodes"] == Limit(5, "users.ada.nodes")
    assert policy.limits(policy.loads("users: {ada: {nodes: 0}}", "p"), "bob", []) == {}


def test_what_is_used_is_said() -> None:
    """The shares count what the user holds elsewhere beside what is asked for."""
    bounds = policy.limits(policy.loads(TEXT, "policy.yaml"), "bob", [])
    shares = policy.shares(bounds, desired(1 << 30, 1 << 30), Held(nodes=3, memory=512 << 20), "policy.yaml")
    assert [str(share) for share in shares] == ["nodes 5 of 10", "memory 2.5 GiB of 4.0 GiB", "lease 1h of 4h"]


@pytest.mark.parametrize(
    ("resources", "held", "said"),
    [
        (desired(None, 1), Held(), r"memory is shared out here \(p: default.memory\), and node client\[0\] may take any"),
        (desired(lease=None), Held(), r"held for 4h at most here \(p: default.lease\), and this one has no lease\n.*duration: 4h"),
        (desired(*[5 << 30] * 8, lease=36000), Held(nodes=3), r"nodes 11 of 10 \(p: default.nodes\)\n  memory .*\n  lease 10h of 4h"),
    ],
)
def test_too_much_is_refused_by_name(resources: list[Resource], held: Held, said: str) -> None:
    """What exceeds a limit is refused with the policy's file and each field, and with what to do."""
    bounds = policy.limits(policy.loads(TEXT, "policy.yaml"), "bob", [])
    with pytest.raises(PlanError, match=said) as raised:
        policy.shares(bounds, resources, held, "p")
    assert raised.value.remedy


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("default: {node: 3}", r"p:1:11: default.node: unknown field; expected one of nodes, .*did you mean 'nodes'"),
        ("default:\n  nodes: some", r"p:2:10: default.nodes: wrong value; expected an integer"),
        ("users:\n  ada: {memory: 4 apples}", r"p:2:17: users.ada.memory: wrong value; expected a size such as"),
        ("default: {nodes: -1, lease: 0}", r"default.nodes: .*at least 0\n.*default.lease: .*more than 0"),
        ("- nodes", "not a policy file; expected a mapping with default, groups and users"),
        ("", "the file is empty; expected a policy"),
    ],
)
def test_a_wrong_policy_is_located(text: str, said: str) -> None:
    """What is wrong in a policy is said with file, line and field."""
    with pytest.raises(ExperimentFileError, match=said):
        policy.loads(text, "p")


def test_the_policy_of_the_page_is_one() -> None:
    """Each policy that the page on classes shows is one, and the page names every field."""
    page = (Path(__file__).parents[2] / "docs" / "class.md").read_text(encoding="utf-8")
    shown = re.findall(r"```yaml\n# /etc/wardian/policy.yaml\n(.*?)```", page, re.DOTALL)
    assert [policy.loads(text, "class.md") for text in shown]
    assert all(f"`{field}`" in page for field in policy.Limits.model_fields)
