"""`%load_ext tests.kernel.stock_hosts`: what `%load_ext wardian` does, with folders of this host as nodes."""

from __future__ import annotations

from typing import Any

from wardian.kernel import stock

from .hosts import HostEnvironment


def load_ipython_extension(shell: Any) -> None:
    """Called by IPython."""
    stock.load(shell, HostEnvironment.find)


def unload_ipython_extension(shell: Any) -> None:
    """Called by IPython."""
    stock.unload(shell)
