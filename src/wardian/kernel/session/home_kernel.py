"""The process of the home kernel: ipykernel's own application, with our extension, that drops no output and dies with the router."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1


def forked(arguments: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
    """The same in a process that was forked from the preloaded one: {"argv", "env", "cwd"}."""
    from ...providers.preload import draw_anew, set_title, take_environment

    # our parent is the preloaded process, which ends with the router
    parent = os.getppid()
    take_environment({**arguments["env"], "JPY_PARENT_PID": str(parent)})
    draw_anew()
    os.chdir(arguments["cwd"])
    # ipykernel read the variable when it was loaded
    sys.argv = [__file__, *arguments["argv"], f"--IPKernelApp.parent_handle={parent}"]
    set_title([sys.executable, *sys.argv])
    say({"pid": os.getpid()})
    main()


def main() -> None:
    """Run the kernel; the arguments are ipykernel's own."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # As ipykernel_launcher does: nothing in the notebook's folder may shadow what the kernel is made of.
    if sys.path[0] == "" or Path(sys.path[0]) == Path.cwd():
        del sys.path[0]

    from ipykernel.kernelapp import IPKernelApp

    class HomeApp(IPKernelApp):  # type: ignore[misc]
        def init_iopub(self, context: Any) -> None:
            # The default of 1000 messages loses output, without a word, when it comes faster than it is taken.
            context.sndhwm = 0
            super().init_iopub(context)

    HomeApp.launch_instance(extra_extensions=["wardian.kernel.session.extension"])


if __name__ == "__main__":
    main()
