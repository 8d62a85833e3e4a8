"""Copying files and directories to and from nodes.

Everything crosses as a tar stream, which carries names, permissions and times; the node needs no more than a POSIX shell with cat, mkdir,
mv, tar and sha256sum. A single file is made under a temporary name beside its target, compared by its SHA-256, and renamed.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import stat
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..errors import TransferError
from ..tars import BadArchive
from .bridge import Inlet, Outlet, Stopped
from .pack import Changed, OnProgress, Packer, content_size, tree_digest
from .unpack import Unpacked, place, unpack

if TYPE_CHECKING:
    from ..providers.base import Channel, Process

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Transfer:
    """A copy that succeeded.

    direction: "put" (to the node) or "get". target: the path that was made. bytes, files: of content.
    sha256: of a file its content; of a directory a digest of the names and contents of the files in it. seconds: how long it took.
    """

    node: str
    direction: str
    source: str
    target: str
    bytes: int
    files: int
    sha256: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One side of a copy; `node` is the selector before the colon, or None for a local path."""

    node: str | None
    path: str


_ENDPOINT = re.compile(r"((?:[^/:\[\]]|\[[^\[\]/]*\])+):(.*)", re.DOTALL)


def parse_endpoint(text: str) -> Endpoint:
    """`client[0]:/path` names a node, everything without a colon before its first slash a local file (`./a:b` where that has one).

    A node's path without a leading slash starts at the home directory there, which is also what an empty one means.
    """
    match = _ENDPOINT.fullmatch(text)
    return Endpoint(match[1], match[2] or ".") if match else Endpoint(None, text)


async def put(
    channel: Channel, node: str, source: Path, target: str, *, mode: int | None = None, on_progress: OnProgress | None = None
) -> Transfer:
    """Copy a local file or directory to a node, as `cp -r` would: into `target` if that is a directory there, else as `target`.

    Permissions, modification times (whole seconds) and symbolic links within a directory are kept; mode: a file's permissions, where
    they should be others. Raises TransferError; a file's target then is what it was before. Raises NodeDownError.
    """
    started = time.monotonic()
    try:
        is_directory = stat.S_ISDIR(source.stat().st_mode)
        total = await asyncio.to_thread(content_size, source)
    except OSError as error:
        raise TransferError(node, f"{source}: {error.strerror}") from error
    script = PUT_DIRECTORY if is_directory else PUT_FILE
    process = await channel.start(["sh", "-c", script, "sh", _node_path(target), source.name, f".wardian-{secrets.token_hex(8)}"])
    talk = _Talk(process)
    try:
        outlet = Outlet(talk.stdin)
        packer = Packer(outlet, total, on_progress)
        pack = packer.directory if is_directory else packer.file
        try:
            await outlet.serve(lambda: pack(source, mode))
            cut_short = False
        except Stopped:
            # the node's side ended early: its exit code and words say why
            cut_short = True
        except (OSError, Changed) as error:
            raise TransferError(node, f"{source}: {getattr(error, 'strerror', None) or error}") from error
        code, said = await talk.end()
        if code != 0 or cut_short:
            raise _refused(node, f"cannot copy {source} to {target}", said, code)
        final = os.fsdecode(await talk.output())
    finally:
        await process.close()
        await talk.close()
    return Transfer(node, "put", str(source), final, packer.bytes, packer.files, packer.sha256(), time.monotonic() - started)


async def get(
    channel: Channel, node: str, source: str, target: Path, *, limit: int | None = None, on_progress: OnProgress | None = None
) -> Transfer:
    """Copy a file or directory of a node here, as `cp -r` would: into `target` if that is a directory, else as `target`.

    What comes is not trusted: no name or link leads out of what is copied, there are no devices, set-user bits are dropped, and
    nothing larger than the free space, or than `limit` bytes, is accepted. Nothing shows under its final name before it is complete
    and, for a file, has the SHA-256 that the node computed.
    Raises TransferError and NodeDownError.
    """
    started = time.monotonic()
    into = target.is_dir()
    if not into and not target.parent.is_dir():
        raise TransferError(node, f"cannot copy {source} to {target}: there is no directory {target.parent}", remedy="make it first")
    process = await channel.start(["sh", "-c", GET, "sh", _node_path(source)], stdin=asyncio.subprocess.DEVNULL)
    talk = _Talk(process)
    try:
        kind = (await _first_line(talk.stdout)).decode(errors="replace")
        if kind not in ("file", "directory"):
            code, said = await talk.end()
            raise _refused(node, f"cannot copy {source} to {target}", said, code)
        name = _base_name(source)
        final = target / name if into and name else target
        inlet = Inlet(talk.stdout)
        try:
            result = await inlet.serve(lambda: _receive(inlet, final, kind, limit, on_progress, talk))
        except (BadArchive, tarfile.TarError, EOFError) as error:
            said = talk.said()
            raise TransferError(node, f"cannot copy {source} to {target}: {said or error}", remedy=_remedy(said)) from error
        except OSError as error:
            raise TransferError(node, f"cannot write {final}: {error.strerror or error}", remedy=_remedy(str(error))) from error
    finally:
        await process.close()
        await talk.close()
    return Transfer(node, "get", source, str(final), result.bytes, result.files, result.sha256, time.monotonic() - started)


# Where there is a choice the faster way: GNU tar reads and writes 10 KiB at a time unless told otherwise, sha256sum often lacks the
# processor's instructions.
_TOOLS = """
case $(tar --version 2>/dev/null) in *GNU*) wide='-b 1024';; *) wide=;; esac
hash() { if command -v openssl >/dev/null 2>&1; then openssl dgst -sha256 -r; else sha256sum; fi; }
"""

# Each script leaves its temporary directory only when it is killed outright. It says where the copy went on its standard output.
# The arguments: target, the source's name, a name for the temporary directory.
_RESOLVE = (
    _TOOLS
    + """
target=$1 name=$2
if [ -d "$target" ] && [ -n "$name" ]; then target=${target%/}/$name; fi
"""
)

PUT_FILE = (
    _RESOLVE
    + """
case $target in */) echo "$target: no such directory" >&2; exit 1;; esac
if [ -d "$target" ]; then echo "$target: is a directory" >&2; exit 1; fi
parent=${target%/*}/
if [ ! -d "$parent" ]; then echo "$parent: no such directory" >&2; exit 1; fi
temporary=$parent$3
trap 'rm -rf "$temporary"' EXIT
trap 'exit 129' HUP INT TERM PIPE
(umask 077; mkdir "$temporary") && tar -x -p -o $wide -f - -C "$temporary" || exit 1
cat > /dev/null
read -r expected < "$temporary/sum" && actual=$(hash < "$temporary/data") || exit 1
if [ "${actual%% *}" != "$expected" ]; then echo "the copy differs from the original" >&2; exit 1; fi
mv -f "$temporary/data" "$target" && printf %s "$target"
"""
)

PUT_DIRECTORY = (
    _RESOLVE
    + """
if [ -e "$target" ] && [ ! -d "$target" ]; then echo "$target: is not a directory" >&2; exit 1; fi
[ -d "$target" ] || mkdir "$target" || exit 1
tar -x -p -o $wide -f - -C "$target" || exit 1
cat > /dev/null
printf %s "$target"
"""
)

GET = (
    _TOOLS
    + """
source=$1
if [ -d "$source" ]; then
  cd "$source" || exit 1
  echo directory
  exec tar -c $wide -f - .
elif [ -f "$source" ]; then
  if [ ! -r "$source" ]; then echo "$source: permission denied" >&2; exit 1; fi
  echo file
  hash < "$source" >&2 &
  cd "${source%/*}/" && tar -c -h $wide -f - "./${source##*/}"
  code=$?
  wait
  exit $code
elif [ -e "$source" ]; then
  echo "$source: neither a file nor a directory" >&2
else
  echo "$source: no such file or directory, or no permission to reach it" >&2
fi
exit 1
"""
)


def _node_path(path: str) -> str:
    """A path that no program takes for an option and that always has a slash."""
    return path if path.startswith("/") else f"./{path}"


def _base_name(path: str) -> str:
    name = path.rstrip("/").rpartition("/")[2]
    return "" if name in (".", "..") else name


async def _first_line(stream: asyncio.StreamReader) -> bytes:
    # byte by byte, and no more than a word's length: what follows is the archive
    line = b""
    while len(line) < 16 and (byte := await stream.read(1)) not in (b"", b"\n"):
        line += byte
    return line


@dataclass(frozen=True, slots=True)
class _Received:
    bytes: int
    files: int
    sha256: str


def _receive(inlet: Inlet, final: Path, kind: str, limit: int | None, on_progress: OnProgress | None, talk: _Talk) -> _Received:
    """Unpack beside the target, check, and only then put in place; runs in a worker thread."""
    temporary = final.parent / f".wardian-{secrets.token_hex(8)}"
    temporary.mkdir(mode=0o700)
    try:

        def progress(done: int, total: int) -> None:
            if on_progress:
                inlet.call(on_progress, done, total)

        found = unpack(inlet, temporary, single=kind == "file", limit=limit, on_progress=progress)
        inlet.skip()
        code, said = inlet.wait(talk.end())
        _check(found, kind, code, said)
        place(temporary / "tree", final)
    finally:
        _remove(temporary)
    return _Received(found.size, len(found.files), tree_digest(found.files))


_SUM = re.compile(r"[0-9a-f]{64} [ *](-|stdin)")


def _check(found: Unpacked, kind: str, code: int, said: str) -> None:
    sums = [line[:64] for line in said.splitlines() if _SUM.fullmatch(line)]
    words = [line for line in said.splitlines() if not _SUM.fullmatch(line)]
    if kind == "directory":
        # GNU tar's exit code 1 for a file that grew or went away meanwhile: what it sent is consistent
        if code == 1 and words and all(re.search(r"file changed as we read it$|File removed before we read it$", line) for line in words):
            return
        if code != 0:
            raise BadArchive(words[-1] if words else f"tar ended with exit code {code}")
        return
    if code != 0:
        raise BadArchive(words[-1] if words else f"the node's side ended with exit code {code}")
    if sums != [found.files[b""]]:
        if found.size == 0:
            raise BadArchive("its content is made up as it is read, as in /proc: copy it to a file on the node first")
        raise BadArchive("it changed while it was copied, or the copy differs from the original")


def _remove(folder: Path) -> None:
    import shutil

    # what was unpacked may deny its owner entry
    for path, names, _ in os.walk(folder):
        for name in names:
            if not os.path.islink(os.path.join(path, name)):
                os.chmod(os.path.join(path, name), 0o700)
    shutil.rmtree(folder)


class _Talk:
    """What the node's side says on its standard error, bounded, and its exit code."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._said = bytearray()
        self._task = asyncio.create_task(self._listen(_piped(process.stderr)))

    @property
    def stdin(self) -> asyncio.StreamWriter:
        return _piped(self._process.stdin)

    @property
    def stdout(self) -> asyncio.StreamReader:
        return _piped(self._process.stdout)

    async def end(self) -> tuple[int, str]:
        code = await self._process.wait()
        await self._task
        return code, self._said.decode(errors="backslashreplace").strip()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def output(self) -> bytes:
        return await self.stdout.read(65536)

    def said(self) -> str:
        lines = [line for line in self._said.decode(errors="backslashreplace").splitlines() if not _SUM.fullmatch(line)]
        return lines[-1] if lines else ""

    async def _listen(self, stream: asyncio.StreamReader) -> None:
        while data := await stream.read(4096):
            self._said += data
            del self._said[:-16384]


def _piped(stream: T | None) -> T:
    if stream is None:
        raise RuntimeError("the channel gave no pipe where one was asked for")
    return stream


def _refused(node: str, what: str, said: str, code: int) -> TransferError:
    # what is said first names the cause, the rest its consequences; but GNU tar reports a short write before a full disk
    lines = said.splitlines()
    full = next((line for line in lines if "No space left" in line), None)
    reason = full or (lines[0] if lines else f"exit code {code}")
    return TransferError(node, f"{what}: {reason}", remedy=_remedy(said))


def _remedy(said: str) -> str | None:
    if "No space left" in said or "quota exceeded" in said:
        return "free some space there"
    if re.search(r"(tar|sha256sum): .*not found", said):
        return "copying needs tar and sha256sum on the node: install them there (`setup:`)"
    return None
