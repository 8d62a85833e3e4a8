"""What a host's login shell is given: SSH has one string for a command, and which shell reads it is the host's affair.

Arguments are quoted, never interpolated, for a POSIX shell that any login shell can start: `exec /bin/sh -c '…'` means the same to sh,
bash, zsh, csh and fish, as long as what stands between the quotes has no backslash, exclamation mark, newline or character outside of
ASCII. A script that has one is written with octal numbers for those, and decoded there by `printf`.
"""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Mapping, Sequence

CACHE = ".cache/wardian"
"""Folder in a host's home of all that is ours there."""

_POSIX = ("sh", "bash", "dash", "ash")
"""Login shells that read a POSIX script themselves, which saves one process a command."""

_SPECIAL = re.compile(r"[\\!\n\r\x00-\x1f\x7f-\U0010ffff\udc80-\udcff]")
_ENCODED = re.compile(rb"[^A-Za-z0-9 _./:=,@%+~*?\[\]{}()<>|&;$\"#^-]")


def for_login_shell(script: str, shell: str = "") -> str:
    """A POSIX shell script as the string that a login shell is given. shell: its path where that is known."""
    if shell.rpartition("/")[2] in _POSIX:
        return script
    if not _SPECIAL.search(script):
        return f"exec /bin/sh -c {shlex.quote(script)}"
    encoded = _ENCODED.sub(lambda match: b"\\0%03o" % match[0][0], script.encode(errors="surrogateescape")).decode()
    return f"""exec /bin/sh -c 'eval "$(printf %b "$1")"' sh '{encoded}'"""


def script(text: str, arguments: Sequence[str], token: str) -> str:
    """A shell script with its arguments ($1, $2, …), which first prints `token` on a line of its own: what came before it is not ours."""
    return f"echo {token}; {_positional(arguments)}; {text}"


def start(
    place: str,
    argv: Sequence[str],
    token: str,
    *,
    env: Mapping[str, str],
    cwd: str | None,
    stdin: int | None,
    stdout: int | None,
    stderr: int | None,
    terminal: bool,
) -> str:
    """A script that starts a command on a node, in a session of its own, and ends with its exit code; 128 + n when signal n ended it.

    place: folder of the node below CACHE. Before anything of the command it prints a line that begins with `token`: then comes the
    number of the process group to signal, or what is wrong: "gone", "folder", "missing" or "unfit".
    """
    program = shlex.quote(argv[0])
    if "/" in argv[0]:
        check = f'if [ ! -e {program} ]; then echo "$t missing"; exit 0; fi; '
        check += f'if [ -d {program} ] || [ ! -x {program} ]; then echo "$t unfit"; exit 0; fi'
    else:
        check = f'command -v -- {program} >/dev/null 2>&1 || {{ echo "$t missing"; exit 0; }}'
    run = 'echo "$t $g"; exec "$@"'
    if not terminal:
        run = f'if command -v setsid >/dev/null; then echo "$t $p"; exec setsid "$@"{_redirections(stdin, stdout, stderr)}; fi; {run}'
    parts = [
        f't={token}; f="$HOME"/{CACHE}/{shlex.quote(place)}/env',
        # the node stands still: whoever has it go on opens the other end
        '[ ! -p "${f%/env}/paused" ] || true <"${f%/env}/paused" 2>/dev/null',
        '[ -r "$f" ] || { echo "$t gone"; exit 0; }',
        '. "$f"',
        # a node that is limited, or was slowed, has its processes in control groups
        'if [ -r "${f%env}cgroup" ]; then while read -r g; do '
        '{ echo $$ >"$g/cgroup.procs" || echo $$ | sudo -n tee "$g/cgroup.procs"; } >/dev/null 2>&1; done <"${f%env}cgroup"; fi',
        *(f"export {name}={shlex.quote(value)}" for name, value in env.items()),
        *([f'cd -- {shlex.quote(cwd)} 2>/dev/null || {{ echo "$t folder"; exit 0; }}'] if cwd is not None else []),
        check,
        _positional(argv),
        # the shell that waits outlives what the terminal sends to all, and keeps its remarks about how the command ended to itself
        "trap : HUP INT QUIT TERM; exec 3>&2 2>/dev/null",
        # in a subshell $$ is its parent's number, and its own is to be had there
        f"( read -r p c s q g r </proc/self/stat; {run}{_redirections(stdin, stdout, stderr)} )",
        "exit",
    ]
    return "; ".join(parts)


def signal(group: int, number: int) -> str:
    """A script that signals a process group, or the process where that leads none."""
    return f"kill -{number} -{group} 2>/dev/null || kill -{number} {group} 2>/dev/null"


def variables(env: Mapping[str, str]) -> str:
    """A file that sets these variables when a shell reads it."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in env.items())


def _positional(arguments: Sequence[str]) -> str:
    return "set -- " + " ".join(map(shlex.quote, arguments))


def _redirections(stdin: int | None, stdout: int | None, stderr: int | None) -> str:
    null = asyncio.subprocess.DEVNULL
    text = " </dev/null" if stdin == null else ""
    text += " >/dev/null" if stdout == null else ""
    text += {null: " 2>/dev/null", asyncio.subprocess.STDOUT: " 2>&1"}.get(stderr, " 2>&3") if stderr is not None else " 2>&3"
    return f"{text} 3>&-"
