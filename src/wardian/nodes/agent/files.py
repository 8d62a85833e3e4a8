"""Small things done to files, and the log."""

from __future__ import annotations

import contextlib
import errno
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def unlinked_file(directory: str) -> int:
    """A file that has no name, and vanishes with this process; gives its descriptor."""
    path = os.path.join(directory, f".wardian-{os.getpid()}-{os.urandom(6).hex()}")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    return fd


def log(text: str) -> None:
    """A line of the agent's log."""
    with contextlib.suppress(OSError):
        os.write(2, ("{} {}\n".format(time.strftime("%Y-%m-%d %H:%M:%S"), text.rstrip())).encode("utf-8", "replace"))


def write_file(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", errors="surrogatepass") as file:
        file.write(text)


def remove_file(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def remove_folder(path: str) -> None:
    """A folder and the files in it."""
    try:
        for name in os.listdir(path):
            os.unlink(os.path.join(path, name))
        os.rmdir(path)
    except OSError as error:
        if error.errno != errno.ENOENT:
            log(f"{path}: {error}")


def find_program(name: str, env: Mapping[str, str]) -> str | None:
    """The path of a program, found as a shell would."""
    import shutil

    return shutil.which(name, path=env.get("PATH", os.defpath)) if name else None


def home() -> str:
    """The user's home, or / where there is none."""
    path = os.environ.get("HOME") or "/"
    return path if os.path.isdir(path) else "/"
