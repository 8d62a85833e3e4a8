"""Kernels that are installed on the node."""

from __future__ import annotations

import json
import os
import sys

from .files import find_program, home
from .jupyter import JupyterKernel
from .protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from .agent import Agent


class SpecKernel(JupyterKernel):
    """A kernel that a kernelspec of the node describes."""

    TRANSPORTS = ("ipc", "tcp")

    def __init__(self, agent: Agent, name: str, env: Mapping[str, str], cwd: str, language: str) -> None:
        super().__init__(agent, name, env, cwd)
        specs = kernelspecs(self.env)
        folder, spec = specs[find_spec(language, specs)]
        self.language = language
        self.title = str(spec.get("display_name") or language)
        self.interrupts_by_message = spec.get("interrupt_mode") == "message"
        self._folder, self._argv = folder, [str(word) for word in spec["argv"]]
        variables = spec.get("env")
        for variable, value in variables.items() if isinstance(variables, dict) else ():
            self.env[variable] = expand(str(value), self.env)

    def argv(self, connection: str) -> Sequence[str]:
        values = {"{connection_file}": connection, "{resource_dir}": self._folder}
        argv = []
        for word in self._argv:
            for name, value in values.items():
                word = word.replace(name, value)
            argv.append(word)
        # PREFIX/share/jupyter/kernels/NAME: a bare `python` there means the one that the kernel is installed for
        own = os.path.join(self._folder, *[os.pardir] * 4, "bin", argv[0])
        if argv[0] in ("python", "python3") and os.access(own, os.X_OK):
            argv[0] = os.path.normpath(own)
        return argv


def kernelspecs(env: Mapping[str, str]) -> dict[str, tuple[str, dict[str, Any]]]:
    """The kernels that are installed here for Jupyter: {name: (folder, what its kernel.json says)}."""
    own = env.get("JUPYTER_DATA_DIR") or os.path.join(env.get("XDG_DATA_HOME") or os.path.join(home(), ".local", "share"), "jupyter")
    prefixes = [os.path.join(sys.prefix, "share", "jupyter")]
    python = find_program(env.get("WARDIAN_PYTHON") or "", env)
    if python:
        prefixes.insert(0, os.path.join(os.path.dirname(os.path.dirname(python)), "share", "jupyter"))
    folders = [*filter(None, env.get("JUPYTER_PATH", "").split(os.pathsep)), own, *prefixes]
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for folder in [*folders, "/usr/local/share/jupyter", "/usr/share/jupyter"]:
        path = os.path.join(folder, "kernels")
        for name in sorted(os.listdir(path)) if os.path.isdir(path) else ():
            try:
                with open(os.path.join(path, name, "kernel.json"), encoding="utf-8") as file:
                    spec = json.load(file)
            except (OSError, ValueError):
                continue
            # a router within a node would find no environment
            if isinstance(spec, dict) and isinstance(spec.get("argv"), list) and spec["argv"] and name != "wardian":
                found.setdefault(name.lower(), (os.path.join(path, name), spec))
    return found


def find_spec(language: str, specs: Mapping[str, tuple[str, dict[str, Any]]]) -> str:
    """The name of the kernel that is called so, or is the only one for a language that is called so. Raises Refused."""
    wanted = language.lower()
    if wanted in specs:
        return wanted
    fitting = [name for name, (_, spec) in specs.items() if str(spec.get("language")).lower() == wanted]
    if len(fitting) == 1:
        return fitting[0]
    there = ", ".join(["python", "bash", *(f"{name} ({spec.get('display_name', name)})" for name, (_, spec) in sorted(specs.items()))])
    if fitting:
        raise Refused("argument", f"there are several kernels for {language!r}: {', '.join(sorted(fitting))}", "Name one of them.")
    raise Refused("argument", f"there is no kernel for {language!r}; there are {there}", "Install its kernel on the node.")


def expand(text: str, env: Mapping[str, str]) -> str:
    """A text with ${NAME} replaced by what the environment says; names that it lacks stay."""
    import re

    return re.sub(r"\$\{(\w+)\}", lambda found: env.get(found[1], found[0]), text)
