"""Wardian: experimental containers for notebooks.

    import wardian

    with wardian.Environment("experiment.yaml") as environment:
        environment.up()
        for result in environment.exec("client", ["hostname"]):
            print(result.node, result.stdout)

In a notebook that runs on the Wardian kernel, or after `%load_ext wardian` in another IPython kernel, `wardian.results` holds the last
values by node, `wardian.nodes["client"]["x"]` is a variable of a node's kernel, `wardian.fetch` brings files, `wardian.forward` opens
ports, and `wardian.record` writes down what was measured. `wardian.aio` is the asynchronous mirror. Everything is imported at first use,
so that `import wardian` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import aio as aio
    from . import nodes as nodes
    from .errors import WardianError as WardianError
    from .experiment.model import Experiment as Experiment
    from .experiment.plan import Plan as Plan
    from .kernel.session.forward import forward as forward
    from .kernel.values.fetching import fetch as fetch
    from .nodes.run import Result as Result
    from .replay.rows import record as record
    from .sync import Environment as Environment
    from .sync import load as load

_EXPORTS = {
    "Environment": ".sync",
    "Experiment": ".experiment.model",
    "Plan": ".experiment.plan",
    "Result": ".nodes.run",
    "WardianError": ".errors",
    "fetch": ".kernel.values.fetching",
    "forward": ".kernel.session.forward",
    "load": ".sync",
    "record": ".replay.rows",
    "results": ".kernel.values.results",
}

__all__ = ["Environment", "Experiment", "Plan", "Result", "WardianError", "aio", "fetch", "forward", "load", "nodes", "record", "results"]


def __getattr__(name: str) -> Any:
    if name in ("aio", "nodes"):
        return import_module(f".{name}", __name__)
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name], __name__), name)


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext wardian`: cells on nodes and the magics in an IPython kernel that is not Wardian's own."""
    if "wardian.kernel.session.extension" in shell.extension_manager.loaded:
        print("this is Wardian's own kernel: %%on and the magics are here already")
        return
    import_module(".kernel.stock", __name__).load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """`%unload_ext wardian`."""
    if "wardian.kernel.session.extension" not in shell.extension_manager.loaded:
        import_module(".kernel.stock", __name__).unload(shell)


def __dir__() -> list[str]:
    return __all__
