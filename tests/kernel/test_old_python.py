"""What runs on nodes needs no newer Python than 3.8."""

from __future__ import annotations

import ast
import json
from importlib.resources import files

import pytest
import vermin

from wardian.kernel.places import alignment
from wardian.nodes import boot, kernels, ports
from wardian.nodes.agent.python import PythonKernel

OLDEST = (3, 8)
SOURCES = {
    **json.loads(boot.SOURCE),
    "its start": boot.BOOT,
    "a kernel's start": PythonKernel.LAUNCHER,
    "packages": kernels.UNPACK,
    "ports": ports._PYTHON,
    "values": files("wardian.kernel.values").joinpath("encoding.py").read_text(),
    "prompts": alignment.SOURCE,
    "the probe of links": files("wardian.environment.verify").joinpath("probe.py").read_text(),
    "captures": files("wardian.environment").joinpath("sniffer.py").read_text(),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=list(SOURCES))
def test_what_runs_on_nodes_is_of_an_old_python(source: str) -> None:
    """Each piece of Python that is sent to nodes has the syntax of 3.8, and uses nothing of the library that came later."""
    ast.parse(source, feature_version=OLDEST)
    assert (vermin.visit(source, config=vermin.Config()).minimum_versions()[1] or OLDEST) <= OLDEST


def test_newer_code_is_recognised() -> None:
    """The check notices a function that came with 3.9, and syntax that came with 3.10."""
    assert vermin.visit("'ab'.removeprefix('a')", config=vermin.Config()).minimum_versions()[1] > OLDEST
    with pytest.raises(SyntaxError):
        ast.parse("match 1:\n    case 1: pass", feature_version=OLDEST)
