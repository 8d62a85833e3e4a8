"""Archives of images, written part by part, so that any part can be wrong."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wardian.providers.images.archive import architecture

Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, to: str = "", mode: int = 0o644, **fields: Any) -> Entry:
    """A member of a layer. A name that ends with a slash is a folder's."""
    info = tarfile.TarInfo(name.rstrip("/") if name != "/" else name)
    info.type, info.linkname, info.mode, info.size = (tarfile.DIRTYPE if name.endswith("/") else kind), to, mode, len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def link(name: str, to: str) -> Entry:
    return entry(name, kind=tarfile.SYMTYPE, to=to)


def tar(entries: Iterable[Entry]) -> bytes:
    """A tar of these."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return whole.getvalue()


def packed(folder: Path) -> bytes:
    """A tar of a folder."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        archive.add(folder, ".")
    return whole.getvalue()


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def config(layers: Iterable[bytes], **said: Any) -> bytes:
    """The configuration of an image of these tars. said: its variables and the like."""
    rootfs = {"type": "layers", "diff_ids": [digest(layer) for layer in layers]}
    return json.dumps({"architecture": architecture(), "os": "linux", "config": said, "rootfs": rootfs}).encode()


def saved(path: Path, layers: list[bytes], about: bytes, *names: str) -> Path:
    """A tar as `docker save` writes it."""
    number = hashlib.sha256(about).hexdigest()
    members = [entry(f"{number}.json", about)]
    members += [entry(f"{position}/layer.tar", layer) for position, layer in enumerate(layers)]
    manifest = [{"Config": f"{number}.json", "RepoTags": list(names), "Layers": [f"{n}/layer.tar" for n in range(len(layers))]}]
    path.write_bytes(tar([*members, entry("manifest.json", json.dumps(manifest).encode())]))
    return path


def layout(layers: list[bytes], about: bytes, name: str = "", **platform: str) -> dict[str, bytes]:
    """The files of an OCI layout, its layers compressed; behind an index of several machines, of which this is one."""
    packed = [gzip.compress(layer, mtime=0) for layer in layers]
    blobs = [about, *packed]
    described = [{"digest": digest(blob), "size": len(blob)} for blob in blobs]
    manifest = json.dumps({"schemaVersion": 2, "config": described[0], "layers": described[1:]}).encode()
    own = {"os": "linux", "architecture": architecture(), **platform}
    other = {"digest": digest(b"another"), "size": 7, "platform": {"os": "linux", "architecture": "pdp11"}}
    machines = [other, {"digest": digest(manifest), "size": len(manifest), "platform": own}]
    index = json.dumps({"schemaVersion": 2, "manifests": machines}).encode()
    called = {"org.opencontainers.image.ref.name": name} if name else {}
    top = {"schemaVersion": 2, "manifests": [{"digest": digest(index), "size": len(index), "annotations": called}]}
    files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(top).encode()}
    return files | {f"blobs/{digest(blob).replace(':', '/')}": blob for blob in [*blobs, manifest, index]}
