"""Wardian: experimental containers for notebooks.

    import wardian

    with wardian.Environment("experiment.yaml") as environment:
        environment.up()
        for result in environment.exec("client", ["hostname"]):
            print(result.node, result.stdout)

In a notebook that runs on the Wardian kernel, `wardian.results` holds the last values by node. `wardian.aio` is the asynchronous
mirror. Everything is imported at first use, so that `import wardian` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import aio as aio
    from .errors import WardianError as WardianError
    from .experiment.model import Experiment as Experiment
    from .experiment.plan import Plan as Plan
    from .nodes.run import Result as Result
    from .sync import Environment as Environment
    from .sync import load as load

_EXPORTS = {
    "Environment": ".sync",
    "Experiment": ".experiment.model",
    "Plan": ".experiment.plan",
    "Result": ".nodes.run",
    "WardianError": ".errors",
    "load": ".sync",
    "results": ".kernel.results",
}

__all__ = ["Environment", "Experiment", "Plan", "Result", "WardianError", "aio", "load", "results"]


def __getattr__(name: str) -> Any:
    if name == "aio":
        return import_module(".aio", __name__)
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name], __name__), name)


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext wardian`: the magics of the Wardian kernel."""
    import_module(".kernel.extension", __name__).load_ipython_extension(shell)


def __dir__() -> list[str]:
    return __all__
