"""What an archive of an image holds, whichever way it was written: an OCI layout (a folder, or a tar of one), a tar of `docker save`, or a
tar with a root file system, which is an image of one layer.

An image is known by the SHA-256 of its configuration, which holds the digests of all its layers: the number that a Docker Engine gives it.
Sources: the OCI image and image layout specifications 1.1, and the Docker image specification 1.2.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import posixpath
import re
import stat
import tarfile
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from ...tars import BadArchive, Header
from .streams import Hashing, decompressed

LARGEST_TEXT = 4 << 20
"""Largest configuration, manifest or index, bytes."""

MOST_LAYERS = 128
"""An Engine takes no more."""

LABEL = "wardian.image"
"""Set on images that were made of a bare root file system."""

_TREE = frozenset((
    *("bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "media", "mnt", "opt", "proc", "root", "run", "sbin", "srv", "sys"),
    *("tmp", "usr", "var"),
))  # fmt: skip
"""What is at the top of root file systems, and of no archive with parts of an image."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_EPOCH = "1970-01-01T00:00:00Z"
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "i686": "386"}
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer. open: its bytes as they are kept, maybe compressed; size: of those; digest: of those; diff: that of the tar in it."""

    open: Callable[[], IO[bytes]]
    size: int
    diff: str
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """What an archive holds. kind: in words; names: as its maker called it; config: the configuration's text, as it was digested."""

    kind: str
    names: tuple[str, ...]
    config: bytes
    layers: tuple[Layer, ...]

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.config).hexdigest()


def architecture() -> str:
    """This machine's, as images call it."""
    machine = os.uname().machine
    return _MACHINES.get(machine, machine)


def is_path(image: str) -> bool:
    """Whether an image is written as a path, and not as a name."""
    return image.startswith(("/", "./", "../", "~")) or image.endswith((".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst"))


def is_layout(folder: Path) -> bool:
    """Whether a folder is an OCI layout, and not a root file system."""
    return (folder / "oci-layout").is_file() and (folder / "index.json").is_file()


@contextmanager
def opened(path: Path, scratch: Path, limit: int) -> Iterator[Image]:
    """The image of an archive, or of a folder with an OCI layout or a root file system, to be read while this is open.

    scratch: an existing folder for what has to be packed or decompressed to be read. limit: bytes that this may measure.
    Raises BadArchive, tarfile.TarError, what `streams.BROKEN` names, and OSError.
    """
    if path.is_dir():
        if is_layout(path):
            yield _from_layout(_Folder(path), "OCI layout")
            return
        with packed(str(path), scratch, limit) as image:
            yield image
        return
    with open(path, "rb") as file:
        if not _is_of_parts(decompressed(file)):
            yield _bare(path)
            return
        with _plain(file, scratch, limit) as whole:
            parts = _Tar(whole)
            yield _from_saved(parts) if parts.has("manifest.json") else _from_layout(parts, "OCI archive")


@contextmanager
def packed(
    root: str, scratch: Path, limit: int, *, without: Collection[str] = (), variables: Mapping[str, str] | None = None
) -> Iterator[Image]:
    """The image that a folder with a root file system makes. without: folders that are empty in it. variables: that it sets.

    Otherwise as `opened`.
    """
    # one without a name is gone with this process, however that ends
    with tempfile.TemporaryFile(dir=scratch) as whole:
        with tarfile.open(fileobj=whole, mode="w") as archive:
            # names are added in order, so that equal folders make equal images
            for name in (".", *(f"./{name}" for name in sorted(os.listdir(root)))):
                deep = name != "." and name[2:] not in without
                archive.add(f"{root}/{name}", name, recursive=deep, filter=lambda member: _for_all(member, limit - whole.tell()))
        whole.flush()
        yield _bare(Path(f"/proc/self/fd/{whole.fileno()}"), variables)


def _for_all(member: tarfile.TarInfo, room: int) -> tarfile.TarInfo:
    """The same for everybody who packs a folder: without the owner's name, and root's where a user namespace shows him as nobody.

    room: bytes that may still come.
    """
    if member.size > room:
        raise BadArchive("it is larger than allowed")
    root = os.lstat("/")
    member.uid, member.gid = member.uid if member.uid != root.st_uid else 0, member.gid if member.gid != root.st_gid else 0
    member.uname = member.gname = ""
    return member


def saved(image: Image, name: str) -> Iterator[bytes]:
    """The image as `docker load` takes it, under a name, whatever it was read from."""
    number = image.digest.removeprefix("sha256:")
    layers = [f"{position:03}-{layer.diff.removeprefix('sha256:')}/layer.tar" for position, layer in enumerate(image.layers)]
    yield from _member(f"{number}.json", io.BytesIO(image.config), len(image.config))
    for member, layer in zip(layers, image.layers, strict=True):
        with layer.open() as stream:
            yield from _member(member, stream, layer.size)
    manifest = json.dumps([{"Config": f"{number}.json", "RepoTags": [name], "Layers": layers}]).encode()
    yield from _member("manifest.json", io.BytesIO(manifest), len(manifest))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _member(name: str, stream: IO[bytes], size: int) -> Iterator[bytes]:
    header = tarfile.TarInfo(name)
    header.size = size
    yield header.tobuf(tarfile.GNU_FORMAT)
    left = size
    while left:
        chunk = stream.read(min(_CHUNK, left))
        if not chunk:
            raise BadArchive(f"{name} ends early")
        left -= len(chunk)
        yield chunk
    yield bytes(-size % tarfile.BLOCKSIZE)


def _is_of_parts(stream: IO[bytes]) -> bool:
    """Whether a tar holds the parts of an image, and not a root file system."""
    # the type stub wants a file that can be written, too
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=Header, encoding="utf-8", errors="surrogateescape") as archive:  # type: ignore[call-overload]
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]
            name = posixpath.normpath(member.name)
            if name in ("manifest.json", "index.json"):
                return True
            if name.strip("/").split("/")[0] in _TREE:
                return False
    return False


@contextmanager
def _plain(file: IO[bytes], scratch: Path, limit: int) -> Iterator[IO[bytes]]:
    """The archive as a file in which one can go back and forth."""
    file.seek(0)
    stream = decompressed(file)
    if stream is file:
        yield file
        return
    with tempfile.TemporaryFile(dir=scratch) as whole:
        while chunk := stream.read(_CHUNK):
            if whole.tell() + len(chunk) > limit:
                raise BadArchive(f"it is larger than the {limit} bytes allowed")
            whole.write(chunk)
        yield whole


class _Parts(Protocol):
    def has(self, name: str) -> bool: ...

    def open(self, name: str) -> tuple[IO[bytes], int]: ...


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def has(self, name: str) -> bool:
        return (self._path / name).is_file()

    def open(self, name: str) -> tuple[IO[bytes], int]:
        try:
            descriptor = os.open(self._path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise BadArchive(f"{name} cannot be read: {error.strerror}") from error
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(descriptor)
            raise BadArchive(f"{name} is no file")
        return os.fdopen(descriptor, "rb"), found.st_size


class _Tar:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._members: dict[str, tarfile.TarInfo] = {}
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:", tarinfo=Header, encoding="utf-8", errors="surrogateescape") as archive:
            for member in archive:
                self._members[posixpath.normpath(member.name)] = member

    def has(self, name: str) -> bool:
        return name in self._members

    def open(self, name: str) -> tuple[IO[bytes], int]:
        path = posixpath.normpath(name)
        # `docker save` before 25 wrote links where images share a layer
        for _ in range(8):
            member = self._members.get(path)
            if member is None:
                raise BadArchive(f"{name} is not in it")
            if member.issym():
                path = posixpath.normpath(posixpath.join(posixpath.dirname(path), member.linkname))
            elif member.islnk():
                path = posixpath.normpath(member.linkname)
            elif member.isreg() and not member.issparse():
                return io.BufferedReader(_Window(self._file.fileno(), member.offset_data, member.size)), member.size
            else:
                break
        raise BadArchive(f"{name} is no file in it")


class _Window(io.RawIOBase):
    """A part of a file, read without moving in that."""

    def __init__(self, descriptor: int, begin: int, size: int) -> None:
        self._descriptor = descriptor
        self._place = begin
        self._end = begin + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = os.pread(self._descriptor, min(len(buffer), self._end - self._place), self._place)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def _from_saved(parts: _Parts) -> Image:
    manifests = _json(_text(parts, "manifest.json"), "manifest.json", list)
    if len(manifests) != 1 or not isinstance(manifests[0], dict):
        names = [name for item in manifests if isinstance(item, dict) for name in _strings(item.get("RepoTags"))]
        raise BadArchive(f"it holds {len(manifests)} images ({', '.join(names)}), and one is needed")
    manifest = manifests[0]
    where, members = manifest.get("Config"), manifest.get("Layers")
    if not isinstance(where, str) or not isinstance(members, list) or not all(isinstance(member, str) for member in members):
        raise BadArchive("manifest.json does not say where the configuration and the layers are")
    config = _text(parts, where)
    said = re.search(r"([0-9a-f]{64})(\.json)?$", where)
    if said:
        _check(config, f"sha256:{said[1]}", where)
    layers = []
    for member, diff in zip(members, _diffs(config, len(members)), strict=True):
        layers.append(Layer(_opener(parts, member), _size(parts, member), diff))
    return Image("docker save", _strings(manifest.get("RepoTags")), config, tuple(layers))


def _from_layout(parts: _Parts, kind: str) -> Image:
    index = _json(_text(parts, "index.json"), "index.json", dict)
    found: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for manifest, name in _manifests(parts, index, 0):
        known = found.setdefault(str(manifest["config"].get("digest")), (manifest, []))
        if name and name not in known[1]:
            known[1].append(name)
    if not found:
        raise BadArchive(f"it holds no image for linux/{architecture()}")
    if len(found) > 1:
        names = [name for _, listed in found.values() for name in listed]
        raise BadArchive(f"it holds {len(found)} images ({', '.join(names)}), and one is needed")
    manifest, names = next(iter(found.values()))
    config = _blob(parts, manifest["config"])
    described = manifest.get("layers")
    if not isinstance(described, list):
        raise BadArchive("its manifest names no layers")
    layers = []
    for descriptor, diff in zip(described, _diffs(config, len(described)), strict=True):
        digest = _digest_of(descriptor)
        layers.append(Layer(_opener(parts, _place(digest)), _size(parts, _place(digest)), diff, digest))
    return Image(kind, tuple(names), config, tuple(layers))


def _manifests(parts: _Parts, index: dict[str, Any], depth: int) -> Iterator[tuple[dict[str, Any], str]]:
    """The manifests of images for this machine, with the name that leads there."""
    if depth > 4:
        raise BadArchive("its indexes lie too deep in one another")
    listed = index.get("manifests")
    for descriptor in listed if isinstance(listed, list) else ():
        if not isinstance(descriptor, dict) or not _fits(descriptor.get("platform")):
            continue
        said = _mapping(descriptor.get("annotations"))
        # a tag alone names nothing outside of the archive
        names = _strings([said.get("io.containerd.image.name") or said.get("org.opencontainers.image.ref.name")])
        name = next((name for name in names if ":" in name), "")
        inner = _json(_blob(parts, descriptor), "a manifest", dict)
        if isinstance(inner.get("manifests"), list):
            yield from ((manifest, name or below) for manifest, below in _manifests(parts, inner, depth + 1))
        elif isinstance(inner.get("config"), dict):
            yield inner, name


def _fits(platform: Any) -> bool:
    return not isinstance(platform, dict) or (platform.get("os"), platform.get("architecture")) == ("linux", architecture())


def _diffs(config: bytes, count: int) -> list[str]:
    """The digests of the layers' tars, of a configuration that is one of an image for this machine."""
    said = _json(config, "its configuration", dict)
    diffs = _mapping(said.get("rootfs")).get("diff_ids")
    if not isinstance(diffs, list) or not all(isinstance(item, str) and _DIGEST.fullmatch(item) for item in diffs):
        raise BadArchive("its configuration is none of an image: it has no digests of layers")
    if len(diffs) != count or count > MOST_LAYERS:
        raise BadArchive(f"it has {count} layers, and digests of {len(diffs)}; {MOST_LAYERS} are the most")
    machine = said.get("os", "linux"), said.get("architecture", architecture())
    if machine != ("linux", architecture()):
        raise BadArchive(f"it is for {'/'.join(map(str, machine))}, and this machine is linux/{architecture()}")
    return diffs


def _bare(path: Path, variables: Mapping[str, str] | None = None) -> Image:
    """The image that a root file system makes, which is the same wherever and whenever it is made."""
    with open(path, "rb") as file:
        hashing = Hashing(decompressed(file))
        diff = hashing.finish()
    labels: dict[str, Any] = {"Labels": {LABEL: "yes"}}
    if variables:
        labels["Env"] = [f"{name}={value}" for name, value in sorted(variables.items())]
    history = [{"created": _EPOCH, "created_by": "a root file system"}]
    config = {"architecture": architecture(), "os": "linux", "created": _EPOCH, "config": labels, "history": history}
    config |= {"rootfs": {"type": "layers", "diff_ids": [diff]}}
    text = json.dumps(config, sort_keys=True, separators=(",", ":")).encode()
    return Image("root file system", (), text, (Layer(lambda: open(path, "rb"), path.stat().st_size, diff),))


def _blob(parts: _Parts, descriptor: Any) -> bytes:
    digest = _digest_of(descriptor)
    return _check(_text(parts, _place(digest)), digest, digest)


def _digest_of(descriptor: Any) -> str:
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise BadArchive(f"{digest!r} is no digest of SHA-256")
    return digest


def _place(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _check(data: bytes, digest: str, what: str) -> bytes:
    if "sha256:" + hashlib.sha256(data).hexdigest() != digest:
        raise BadArchive(f"{what} is not what its digest says: the archive is damaged, or was changed")
    return data


def _text(parts: _Parts, name: str) -> bytes:
    stream, size = parts.open(name)
    with stream:
        if size > LARGEST_TEXT:
            raise BadArchive(f"{name} is larger than {LARGEST_TEXT >> 20} MiB")
        return stream.read(size)


def _json(text: bytes, what: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadArchive(f"{what} is no JSON") from error
    if not isinstance(value, kind):
        raise BadArchive(f"{what} is not what it has to be")
    return value


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _size(parts: _Parts, name: str) -> int:
    stream, size = parts.open(name)
    stream.close()
    return size


def _strings(value: Any) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _opener(parts: _Parts, name: str) -> Callable[[], IO[bytes]]:
    return lambda: parts.open(name)[0]
