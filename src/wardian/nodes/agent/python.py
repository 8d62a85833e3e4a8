"""Python's kernel, by whatever interpreter the node has."""

from __future__ import annotations

import contextlib
import json
import os
import sys

from .files import find_program, home, remove_file
from .jupyter import JupyterKernel
from .protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .agent import Agent


class PythonKernel(JupyterKernel):
    """An ipykernel in the node's own interpreter, with what it lacks for that from a folder beside it.

    The interpreter is `WARDIAN_PYTHON` of the node's environment, else the one that runs this. `packages` names the folder.
    """

    language = "python"
    LAUNCHER = """
import sys
packages, needs = sys.argv[1:3]
del sys.argv[1:3]
sys.path[:] = [packages] * bool(packages) + [path for path in sys.path if path]
try:
    if sys.version_info < (3, 8):
        raise ImportError("it is older than Python 3.8")
    import ipykernel.kernelapp
    if ipykernel.version_info[0] < 6:
        raise ImportError("ipykernel is older than 6")
except ImportError as error:
    import json, os, platform, sysconfig
    report = {"error": str(error), "version": list(sys.version_info[:2]), "python": sys.executable, "machine": platform.machine()}
    report.update(implementation=platform.python_implementation(), soabi=sysconfig.get_config_var("SOABI"))
    if sys.version_info >= (3, 8):
        from importlib.metadata import distributions
        for distribution in distributions():
            if distribution.metadata["Name"]:
                report.setdefault("installed", {}).setdefault(distribution.metadata["Name"], distribution.version)
    try:
        report["libc"] = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        report["libc"] = None
    with open(needs, "w") as file:
        json.dump(report, file)
    sys.exit(1)
del packages, needs
import faulthandler, os
faulthandler.enable(os.dup(2))
from ipykernel.kernelapp import IPKernelApp
class Application(IPKernelApp):
    def init_iopub(self, context):
        context.sndhwm = 0
        super().init_iopub(context)
    def log_connection_info(self):
        pass
# history goes to its file a hundred cells at a time, and whenever it is searched: at each cell that takes a fifth of the cell's time
Application.launch_instance(["--HistoryManager.db_cache_size=100"] + sys.argv[1:])
"""

    def __init__(self, agent: Agent, name: str, env: Mapping[str, str], cwd: str, packages: str = "") -> None:
        super().__init__(agent, name, env, cwd)
        self.title = "ipykernel"
        self.python = self.env.get("WARDIAN_PYTHON") or sys.executable
        self._packages = os.path.join(packages_folder(agent.directory), packages) if packages else ""
        self._needs = os.path.join(self.directory, "needs.json")

    def argv(self, connection: str) -> Sequence[str]:
        python = find_program(self.python, self.env)
        if python is None:
            remedy = "Correct `python:` of the node in the experiment file, or install that interpreter there."
            raise Refused("missing", f"the node has no interpreter {self.python}", remedy)
        activate(self.env, python)
        remove_file(self._needs)
        return [python, "-c", self.LAUNCHER, self._packages, self._needs, "-f", connection]

    def _failed_start(self, code: int) -> None:
        """Tell what the interpreter lacks, if that is why it ended: whoever asked for it brings that along."""
        try:
            with open(self._needs, encoding="utf-8") as file:
                needs = json.load(file)
        except (OSError, ValueError):
            super()._failed_start(code)
            return
        folder = packages_folder(self.agent.directory)
        needs.update(folder=folder, there=os.listdir(folder), packages=os.path.basename(self._packages))
        for request in self.starting:
            request.succeed({"needs": needs})
        self.starting.clear()


def activate(env: dict[str, str], python: str) -> None:
    """What activating an interpreter's environment means: its programs come first."""
    folder = os.path.dirname(os.path.abspath(python))
    if folder not in env.get("PATH", os.defpath).split(os.pathsep):
        env["PATH"] = folder + os.pathsep + env.get("PATH", os.defpath)
    prefix = os.path.dirname(folder)
    if os.path.exists(os.path.join(prefix, "pyvenv.cfg")):
        env["VIRTUAL_ENV"] = prefix


def packages_folder(fallback: str) -> str:
    """Where packages are kept that kernels need beside their interpreters; made here."""
    own = os.environ.get("XDG_CACHE_HOME") or os.path.join(home(), ".cache")
    base = "/var/cache" if os.getuid() == 0 else own
    for folder in (os.path.join(base, "wardian", "packages"), os.path.join(fallback, "packages")):
        with contextlib.suppress(OSError):
            os.makedirs(folder, mode=0o755, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    raise Refused("system", "the node has no folder that can be written to", "Give it some room on disk.")
