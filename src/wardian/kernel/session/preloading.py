"""What the preloaded process of a notebook's kernel has loaded: all that a Python kernel needs until it has run its first cell."""

from __future__ import annotations

from ...providers.preloaded import Preloaded

MODULES = (
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "ipykernel.debugger",
    "ipykernel.subshell_manager",
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.core.logger",
    "IPython.core.oinspect",
    "IPython.extensions.storemagic",
    "tornado.locks",
    "tornado.platform.asyncio",
    "tornado.queues",
    "comm",
    "faulthandler",
    "hmac",
    "importlib.metadata",
    "psutil",
    "sqlite3",
    "sysconfig",
    "unicodedata",
    "encodings.idna",
    "wardian.kernel.session.home_kernel",
)
LATER = ("wardian.nodes.stem", "jedi")
"""None of them starts a thread, or opens a socket, when it is imported."""


def preload() -> Preloaded:
    """Start the process. Others may be waiting for this one: it takes a millisecond, and the loading goes on beside us."""
    return Preloaded(MODULES, LATER)
