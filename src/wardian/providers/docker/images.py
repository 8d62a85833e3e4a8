"""What a node's container is made from: an image by its name, pulled where it is not there; one built from a Dockerfile; one out of a
tar or a folder with a root file system; and what a `setup:` script made of one of those. Everything made here is named after what went
into it, so that it is made once.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import tarfile
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from ...errors import ProviderError
from ...tars import BadArchive
from ..images import archive
from ..images.archive import is_path
from ..images.store import LIMIT
from ..images.streams import BROKEN
from . import context, credentials
from .channel import DockerChannel
from .container import IDLE
from .credentials import Credentials
from .engine import Engine, EngineError, remedy
from .names import OWNER, PREFIX, owner

BUILT, UNPACKED, PREPARED = "wardian-build", "wardian-image", "wardian-setup"
"""Repositories of what is built, unpacked and prepared; tags are hashes of what it is made from."""

TAIL = 20
"""Lines of a failing script's output that its error shows."""

_MADE = {f"{PREFIX}image": "yes"}
_CHUNK = 1 << 20
_COLOURS = re.compile(r"\x1b\[[\d;]*m")

Report = Callable[[str], None]


class Images:
    """Those that the nodes of one call need. folder: that of the experiment file. default: for nodes that name none."""

    def __init__(self, engine: Engine, folder: Path, default: str) -> None:
        self._engine = engine
        self._folder = folder
        self._default = default
        self._tasks: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self._with_shell: set[str] = set()

    async def image(self, node: str, spec: Mapping[str, Any], report: Report, digest: str | None = None) -> dict[str, Any]:
        """What the Engine says of the image that this node is made from, made if need be. report: told what is done.

        digest: that of the image that it has to be, with what a build or `setup:` made of it.
        Raises ProviderError saying what cannot be had.
        """
        key = digest or json.dumps([spec.get("build"), spec["image"], spec["setup"]])
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(self._pinned(digest) if digest else self._make(node, spec, report))
        elif not task.done():
            report("waiting for its image")
        try:
            return await asyncio.shield(task)
        except ProviderError as error:
            raise ProviderError(error.message, resource=f"node {node}", remedy=error.remedy) from error

    async def fetched(self, image: Mapping[str, str], report: Report) -> str | None:
        """Have the Engine take an image that it lacks, from where it came; else why that cannot be, and what to do.

        image: as of `Provider.images`.
        """
        digest, name, registry = image["digest"], image.get("name", ""), image.get("registry")
        if await self._present(digest):
            return None
        try:
            if registry:
                report(f"pulling {registry}")
                found = await self._pulled(registry, lambda state: None)
            elif is_path(name):
                found = await self._unpacked(self._folder / Path(name).expanduser(), report)
            else:
                return "`docker load` it: it was made on the Engine where it was locked, and is in no registry"
        except ProviderError as error:
            return f"{error.message}; {error.remedy}" if error.remedy else error.message
        return None if found["Id"] == digest else f"{registry or name} is {found['Id']} now"

    async def require_shell(self, node: str, container: str, image: Mapping[str, Any]) -> None:
        """Raise ProviderError where an image, of which this is a container, has no shell; looked for once."""
        if image["Name"] in self._with_shell:
            return
        try:
            await self._engine.request("HEAD", f"/containers/{container}/archive", query={"path": "/bin/sh"})
        except EngineError as error:
            if error.status != 404:
                raise
            other = "Use an image that has one: nothing runs on a node without it."
            raise ProviderError(f"image {image['Name']} has no /bin/sh", resource=f"node {node}", remedy=other) from None
        self._with_shell.add(image["Name"])

    async def close(self) -> None:
        """Cut short what is still being made."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _make(self, node: str, spec: Mapping[str, Any], report: Report) -> dict[str, Any]:
        if build := spec.get("build"):
            image = await self._built(build, report)
        else:
            image = await self.named(spec["image"] or self._default, report)
        return await self._prepared(image, spec, report) if spec["setup"] is not None else image

    async def _pinned(self, digest: str) -> dict[str, Any]:
        found = await self._present(digest)
        if found is None:
            raise ProviderError(f"the Engine has no image {digest} any more", remedy="Run `wardian up --locked` again to fetch it.")
        return found

    async def named(self, name: str, report: Report) -> dict[str, Any]:
        """What the Engine says of an image by its name or path, got if need be."""
        if is_path(name):
            return await self._unpacked(self._folder / Path(name).expanduser(), report)
        return await self._present(name) or await self._pulled(name, report)

    async def _present(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = {**await self._engine.get(f"/images/{name}/json"), "Name": name}
        except EngineError as error:
            if error.status == 404:
                return None
            raise
        return found

    async def _pulled(self, name: str, report: Report) -> dict[str, Any]:
        report(f"pulling {name}")
        known = await asyncio.to_thread(credentials.for_image, name)
        bare, _, tag = name.rpartition(":")
        whole = name if "@" in name or (bare and "/" not in tag) else f"{name}:latest"
        layers: dict[str, tuple[int, int]] = {}
        try:
            async for item in self._engine.lines("POST", "/images/create", query={"fromImage": whole}, headers=known.header):
                detail = item.get("progressDetail") or {}
                if detail.get("total") and item.get("status") == "Downloading":
                    layers[item["id"]] = detail["current"], detail["total"]
                    done, total = (sum(part) for part in zip(*layers.values(), strict=True))
                    report(f"pulling {name}: {done / 2**20:.0f} of {total / 2**20:.0f} MiB")
        except EngineError as error:
            said = f"there is no image {name} here, and it cannot be pulled: {error.message}"
            raise ProviderError(said, remedy=error.remedy or _pull_remedy(error.message, known)) from error
        found = await self._present(name)
        if found is None:
            raise ProviderError(f"the Engine pulled {name} and does not have it")
        return found

    async def _unpacked(self, path: Path, report: Report) -> dict[str, Any]:
        """An image out of an archive, or of a folder with an OCI layout or a root file system."""
        if not path.exists():
            other = "Write the name of an image, or the path of a folder or archive."
            raise ProviderError(f"there is no image {path}", remedy=other)
        if path.is_dir():
            stat = path.stat()
            number = hashlib.sha256(f"{path.resolve()}\0{stat.st_mtime_ns}".encode()).hexdigest()
        else:
            number = await asyncio.to_thread(_file_digest, path)
        name = f"{UNPACKED}:{number[:32]}"
        if found := await self._present(name):
            return found
        report(f"unpacking {path.name}")
        with tempfile.TemporaryDirectory(prefix="wardian-image-") as scratch, ExitStack() as stack:
            try:
                image = await asyncio.to_thread(lambda: stack.enter_context(archive.opened(path, Path(scratch), LIMIT)))
                await self._loaded(archive.saved(image, name))
            except (BadArchive, tarfile.TarError, *BROKEN) as error:
                other = "Write it anew with `docker save -o`, or as a tar of a root file system."
                raise ProviderError(f"image {path} cannot be unpacked: {error}", remedy=other) from error
        found = await self._present(name)
        if found is None:
            raise ProviderError(f"the Engine took {path} and does not have it")
        return found

    async def _loaded(self, chunks: Iterator[bytes]) -> None:
        async def body() -> AsyncIterator[bytes]:
            while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
                yield chunk

        async for _ in self._engine.lines("POST", "/images/load", body=body(), query={"quiet": True}):
            pass

    async def _built(self, build: Mapping[str, Any], report: Report) -> dict[str, Any]:
        folder = self._folder / build["context"]
        whole = hashlib.sha256(json.dumps(build, sort_keys=True).encode()).hexdigest()
        name = f"{BUILT}:{whole[:32]}"
        if found := await self._present(name):
            return found
        report(f"building {build['context']}")
        query = {"t": name, "rm": True, "forcerm": True, "labels": _MADE, "buildargs": build.get("args") or {}}
        query |= {"dockerfile": build["dockerfile"]} if build.get("dockerfile") else {}
        query |= {"target": build["target"]} if build.get("target") else {}
        headers = await asyncio.to_thread(credentials.for_builds)
        tail: deque[str] = deque(maxlen=TAIL)
        try:
            with tempfile.TemporaryFile() as file:
                await asyncio.to_thread(context.pack, folder, build.get("dockerfile"), file)
                async for item in self._engine.lines("POST", "/build", body=_chunks(file), query=query, headers=headers):
                    if line := _COLOURS.sub("", item.get("stream", "")).strip():
                        tail.append(line)
                        report(f"building: {line.splitlines()[-1][:200]}")
                    elif "status" in item:
                        report(f"building: {item['status']}")
        except OSError as error:
            raise ProviderError(f"{folder} cannot be built: {error.strerror or error}: {error.filename}") from error
        except EngineError as error:
            shown = "".join(f"\n    {line}" for line in tail)
            raise ProviderError(f"building {folder} failed: {error.message}{shown}", remedy=error.remedy or remedy(shown)) from error
        found = await self._present(name)
        if found is None:
            raise ProviderError(f"the Engine built {folder} and does not have it")
        return found

    async def _prepared(self, base: Mapping[str, Any], spec: Mapping[str, Any], report: Report) -> dict[str, Any]:
        """The image that the script makes of another, in a container with the Engine's way out."""
        script = spec["setup"]
        number = hashlib.sha256(json.dumps([base["Id"], script]).encode()).hexdigest()[:32]
        if found := await self._present(f"{PREPARED}:{number}"):
            return found
        report("running setup")
        name = f"wardian-setup-{number[:12]}-{os.urandom(4).hex()}"
        body = {"Image": base["Id"], "Entrypoint": IDLE, "Cmd": [], "User": "0"}
        body |= {"Labels": {f"{PREFIX}setup": number, OWNER: owner()}, "HostConfig": {"LogConfig": {"Type": "none"}}}
        made = await self._engine.post("/containers/create", body, name=name)
        try:
            await self._engine.post(f"/containers/{made['Id']}/start")
            await self._run_setup(name, script, spec["env"], report)
            original = base.get("Config") or {}
            config = {name: original.get(name) for name in ("Entrypoint", "Cmd", "Env", "User")}
            config |= {"Labels": {**(original.get("Labels") or {}), **_MADE}}
            report("keeping what setup made")
            await self._engine.post("/commit", config, container=made["Id"], repo=PREPARED, tag=number)
        finally:
            await asyncio.shield(self._engine.delete(f"/containers/{made['Id']}", force=True, v=True))
        found = await self._present(f"{PREPARED}:{number}")
        if found is None:
            raise ProviderError("the Engine kept what setup made and does not have it")
        return found

    async def _run_setup(self, container: str, script: str, env: Mapping[str, str], report: Report) -> None:
        channel = DockerChannel.of_container(self._engine, container)
        process = await channel.start(
            ["/bin/sh", "-e", "-c", script],
            env={**env, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.STDOUT,
        )
        tail: deque[str] = deque(maxlen=TAIL)
        try:
            while process.stdout is not None and (chunk := await process.stdout.read(1 << 16)):
                lines = [line for line in chunk.decode(errors="replace").splitlines() if line.strip()]
                tail.extend(lines)
                if lines:
                    report(f"setup: {lines[-1][:200]}")
            if code := await process.wait():
                shown = "".join(f"\n    {line}" for line in tail)
                raise ProviderError(f"setup ended with exit code {code}; its last lines:{shown}", remedy=remedy(shown))
        finally:
            await process.close()


async def _chunks(file: IO[bytes]) -> AsyncIterator[bytes]:
    file.seek(0)
    while chunk := await asyncio.to_thread(file.read, _CHUNK):
        yield chunk


def _pull_remedy(said: str, known: Credentials) -> str:
    """What to do about an image that cannot be pulled, for these words of the Engine's."""
    words = said.lower()
    if any(word in words for word in ("unauthorized", "denied", "no basic auth", "forbidden")):
        if known.failure:
            return f"{known.failure}: mend that, or write the password down with {known.login}."
        if known.told:
            return f"The registry refuses what {known.source} has for it: {known.login} renews that. Or the name of the image is wrong."
        return f"{known.login} gives access to a private image. Or its name is wrong."
    if any(word in words for word in ("dial tcp", "no such host", "timeout", "deadline")):
        place = credentials.host(known.registry)
        return f"The Engine does not reach {place}: check that name, and the Engine's network; `docker load` brings an image without it."
    return "Check its name and tag; `docker load` brings an image without a registry."


def _file_digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
