"""Copying to and from nodes: faithful, whole or not at all, and without trust in what comes."""

import asyncio
import hashlib
import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from wardian.errors import NodeDownError, TransferError
from wardian.nodes.files import Endpoint, get, parse_endpoint, put

from ..stage import require
from .host_channel import HostChannel

WEIRD = [
    "with space",
    "quo'te\"",
    "new\nline",
    "-rf",
    "$(touch bad)",
    "back\\slash",
    "ünïcode",
    os.fsdecode(b"not-utf8-\xff\xfe"),
    "l" * 200,
]


@pytest.fixture
def node(tmp_path):
    folder = tmp_path / "node"
    folder.mkdir()
    return folder


@pytest.fixture
def here(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


@pytest.fixture
def channel(node):
    return HostChannel(node)


def listing(folder):
    """Everything under a folder: names, kinds, permissions, times and contents."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = (content, *(() if path.is_symlink() else (oct(status.st_mode), int(status.st_mtime))))
    return found


def leftovers(*folders):
    return [path for folder in folders for path in folder.rglob(".wardian-*")]


async def test_a_file_there_and_back(channel, node, here):
    """Content, permissions and time survive both ways, and both sides name the same hash."""
    content = os.urandom(3_000_001)
    source = here / "a.bin"
    source.write_bytes(content)
    source.chmod(0o750)
    os.utime(source, (1_600_000_000, 1_600_000_000))
    seen = []
    there = await put(channel, "n", source, str(node / "b.bin"), on_progress=lambda done, total: seen.append((done, total)))
    back = await get(channel, "n", "b.bin", here / "c.bin")
    assert (there.bytes, there.files, there.sha256) == (len(content), 1, hashlib.sha256(content).hexdigest())
    assert back.sha256 == there.sha256
    assert seen[-1] == (len(content), len(content))
    for path in (node / "b.bin", here / "c.bin"):
        assert path.read_bytes() == content
        assert (path.stat().st_mode & 0o7777, path.stat().st_mtime) == (0o750, 1_600_000_000)
    await put(channel, "n", source, "d", mode=0o600)
    assert (node / "d").stat().st_mode & 0o7777 == 0o600
    assert leftovers(node, here) == []


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1 << 20])
async def test_sizes_at_the_edges(channel, node, here, size):
    """Empty files and those at the block boundaries arrive as they are."""
    (here / "a").write_bytes(b"x" * size)
    await put(channel, "n", here / "a", "b")
    await get(channel, "n", "b", here / "c")
    assert (here / "c").read_bytes() == b"x" * size


async def test_into_a_directory_as_cp_does(channel, node, here):
    """What is copied to an existing directory goes into it, to any other name it becomes that; a missing parent is an error."""
    (here / "a").write_text("1")
    (node / "dir").mkdir()
    assert (await put(channel, "n", here / "a", "dir")).target == "./dir/a"
    assert (await put(channel, "n", here / "a", f"{node}/dir/")).target == f"{node}/dir/a"
    await put(channel, "n", here / "a", "dir/b")
    assert sorted(os.listdir(node / "dir")) == ["a", "b"]
    assert (await get(channel, "n", "dir", here)).target == str(here / "dir")
    await get(channel, "n", "dir", here / "new")
    assert sorted(os.listdir(here / "new")) == ["a", "b"]
    (node / "dir" / "c").write_text("3")
    await get(channel, "n", "dir/", here)
    assert sorted(os.listdir(here / "dir")) == ["a", "b", "c"]
    await put(channel, "n", here / "new", "dir")
    assert sorted(os.listdir(node / "dir" / "new")) == ["a", "b"]
    for target in ("missing/", "missing/b"):
        with pytest.raises(TransferError, match="no such directory"):
            await put(channel, "n", here / "a", target)
    with pytest.raises(TransferError, match="there is no directory"):
        await get(channel, "n", "dir/a", here / "missing" / "b")
    (node / "other" / "a").mkdir(parents=True)
    with pytest.raises(TransferError, match="is a directory"):
        await put(channel, "n", here / "a", "other")


async def test_a_tree_there_and_back(channel, node, here):
    """Directories arrive with every name, permission, time and link, weird names among them."""
    tree = here / "tree"
    (tree / "sub" / "empty").mkdir(parents=True)
    for number, name in enumerate(WEIRD):
        (tree / name).write_text(str(number))
    (tree / "sub" / "script").write_text("#!/bin/sh\n")
    (tree / "sub" / "script").chmod(0o755)
    (tree / "link").symlink_to("sub/script")
    (tree / "sub" / "up").symlink_to("../link")
    os.utime(tree / "sub", (1_500_000_000, 1_500_000_000))
    there = await put(channel, "n", tree, "copy")
    assert listing(node / "copy") == listing(tree)
    back = await get(channel, "n", "copy", here / "back")
    assert listing(here / "back") == listing(tree)
    assert there.files == back.files == len(WEIRD) + 1
    assert there.sha256 == back.sha256
    assert leftovers(node, here) == []


@pytest.mark.parametrize("name", WEIRD)
async def test_weird_names_of_single_files(channel, node, here, name):
    """A name is never taken for an option, a pattern or a command."""
    (here / name).write_text("content")
    await put(channel, "n", here / name, name)
    assert (node / name).read_text() == "content"
    await get(channel, "n", name, here / "back")
    assert (here / "back").read_text() == "content"
    assert os.listdir(node) == [name]


async def test_hard_links_arrive_as_files(channel, node, here):
    """Two names of one file on the node are two names here."""
    (node / "t").mkdir()
    (node / "t" / "a").write_text("x")
    os.link(node / "t" / "a", node / "t" / "b")
    result = await get(channel, "n", "t", here)
    assert result.files == 2
    assert (here / "t" / "b").read_text() == "x"


@pytest.mark.parametrize(
    ("source", "reason"), [("missing", "no such file"), ("/dev/null", "neither a file"), ("/proc/self/status", "made up as it is read")]
)
async def test_what_cannot_be_fetched(channel, here, source, reason):
    """The error names node, path and reason, and nothing is left here."""
    with pytest.raises(TransferError, match=reason) as caught:
        await get(channel, "n", source, here / "x")
    assert caught.value.node == "n"
    assert source in str(caught.value)
    assert os.listdir(here) == []


async def test_what_cannot_be_sent(channel, here, node):
    """A source that is missing or no file, and a node that is down, are errors of their own."""
    with pytest.raises(TransferError, match="No such file"):
        await put(channel, "n", here / "missing", "x")
    (here / "tree").mkdir()
    os.mkfifo(here / "tree" / "fifo")
    with pytest.raises(TransferError, match="fifo"):
        await put(channel, "n", here / "tree", "x")
    with pytest.raises(TransferError, match="neither a file"):
        await put(channel, "n", here / "tree" / "fifo", "x")
    channel.down = True
    (here / "a").write_text("")
    with pytest.raises(NodeDownError):
        await put(channel, "n", here / "a", "x")


async def test_a_node_without_the_tools(node, here):
    """A node without tar says which programs copying needs."""
    tools = node / "bin"
    tools.mkdir()
    for tool in ("sh", "cat", "mkdir", "mv", "rm"):
        (tools / tool).symlink_to(shutil.which(tool))
    (here / "a").write_text("x")
    with pytest.raises(TransferError, match="tar") as caught:
        await put(HostChannel(node, env={"PATH": str(tools)}), "n", here / "a", "x")
    assert "install" in caught.value.remedy
    assert sorted(os.listdir(node)) == ["bin"]


async def test_a_node_with_only_busybox(node, here):
    """Busybox's tools suffice for files and directories, with weird names, permissions and links."""
    require("busybox")
    tools = here.parent / "tools"
    tools.mkdir()
    for tool in ("sh", "cat", "mkdir", "mv", "rm", "tar", "sha256sum"):
        (tools / tool).symlink_to(shutil.which("busybox"))
    channel = HostChannel(node, env={"PATH": str(tools)})
    tree = here / "tree"
    (tree / "sub").mkdir(parents=True)
    for name in WEIRD:
        (tree / name).write_text(name, errors="surrogateescape")
        await put(channel, "n", tree / name, name)
        await get(channel, "n", name, here / "back")
        assert (here / "back").read_bytes() == (tree / name).read_bytes() == (node / name).read_bytes()
    (tree / "link").symlink_to("sub")
    (tree / WEIRD[0]).chmod(0o751)
    await put(channel, "n", tree, "copy")
    await get(channel, "n", "copy", here / "again")
    for copy in (node / "copy", here / "again"):
        assert {name: content[:2] for name, content in listing(copy).items()} == {
            name: content[:2] for name, content in listing(tree).items()
        }
    with pytest.raises(TransferError, match="no such file"):
        await get(channel, "n", "missing", here / "x")
    assert leftovers(node, here) == []


async def test_a_cancelled_copy_leaves_nothing(channel, node, here):
    """Cancelled in the middle, either way leaves the old target as it was and no temporary file."""
    with (here / "big").open("wb") as file:
        file.truncate(400 << 20)
    (node / "x").write_text("old")
    for copy in (
        lambda progress: put(channel, "n", here / "big", "x", on_progress=progress),
        lambda progress: get(channel, "n", str(here / "big"), node / "x", on_progress=progress),
    ):
        begun = asyncio.Event()
        task = asyncio.create_task(copy(lambda *_, begun=begun: begun.set()))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (node / "x").read_text() == "old"
        assert leftovers(node, here) == []


async def test_a_node_that_dies_while_copying(channel, node, here):
    """When the node's side is killed, the old target stays."""
    with (here / "big").open("wb") as file:
        file.truncate(400 << 20)
    (node / "x").write_text("old")

    def kill(*_):
        process = channel.started[-1].popen
        if process.poll() is None:
            os.killpg(process.pid, 9)

    with pytest.raises(TransferError):
        await put(channel, "n", here / "big", "x", on_progress=kill)
    assert (node / "x").read_text() == "old"
    with pytest.raises(TransferError):
        await get(channel, "n", str(here / "big"), node / "x", on_progress=kill)
    assert (node / "x").read_text() == "old"


async def test_a_source_that_shrinks(channel, node, here):
    """A file that becomes shorter while it is copied is an error, and its target is not made."""
    with (here / "big").open("wb") as file:
        file.truncate(100 << 20)
    with pytest.raises(TransferError, match="shorter"):
        await put(channel, "n", here / "big", "x", on_progress=lambda *_: os.truncate(here / "big", 0))
    assert os.listdir(node) == []


@pytest.mark.root
async def test_a_full_disk(node, here):
    """A full disk on either side is an error that says so and leaves nothing."""
    script = 'mount -t tmpfs -o size=1m none "$1" && shift && exec "$@"'

    class Small(HostChannel):
        async def start(self, argv, **options):
            return await super().start(["unshare", "-m", "sh", "-c", script, "sh", str(node), *argv], **options)

    (here / "big").write_bytes(os.urandom(4 << 20))
    with pytest.raises(TransferError, match="No space left") as caught:
        await put(Small(here), "n", here / "big", str(node / "x"))
    assert "space" in caught.value.remedy


class Hostile(HostChannel):
    """A node whose tar sends an archive of the attacker's making."""

    def __init__(self, home, archive):
        super().__init__(home)
        self.archive = home / "archive"
        self.archive.write_bytes(b"directory\n" + archive)

    async def start(self, argv, **options):
        return await super().start(["cat", str(self.archive)], **options)


def member(name, kind=tarfile.REGTYPE, link="", content=b"", mode=0o644, size=None):
    header = tarfile.TarInfo(name)
    header.type, header.linkname, header.mode = kind, link, mode
    header.size = len(content) if size is None else size
    return header.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


TOP = member(".", tarfile.DIRTYPE, mode=0o755)


def directory(name):
    return member(name, tarfile.DIRTYPE, mode=0o755)


def link(name, target):
    return member(name, tarfile.SYMTYPE, target)


HOSTILE = {
    "parent": member("../evil", content=b"x"),
    "deep parent": directory("a") + member("a/../../evil", content=b"x"),
    "absolute": member("/tmp/wardian-evil", content=b"x"),
    "absolute link": link("a", "/etc"),
    "escaping link": link("a", "../.."),
    "write through a link": directory("d") + link("d/l", "..") + member("d/l/evil", content=b"x"),
    "link over a directory": directory("d") + link("d", "..") + member("d/evil", content=b"x"),
    "chain of links": directory("a") + directory("a/b") + link("a/b/up", "../..") + link("out", "a/b/up/../.."),
    "hard link to the outside": member("h", tarfile.LNKTYPE, "/etc/passwd"),
    "hard link by parents": member("h", tarfile.LNKTYPE, "../../archive"),
    "hard link to a link": link("a", "/etc/passwd") + member("h", tarfile.LNKTYPE, "a"),
    "hard link to nothing": member("h", tarfile.LNKTYPE, "nothing"),
    "device": member("dev", tarfile.CHRTYPE),
    "block device": member("dev", tarfile.BLKTYPE),
    "fifo": member("fifo", tarfile.FIFOTYPE),
    "absurd size": member("huge", size=1 << 60),
    "negative size": member("negative", size=-512),
    "absurd name": member("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=1 << 40),
    "absurd pax header": member("p", tarfile.XHDTYPE, size=1 << 40),
    "missing directory": member("nowhere/a", content=b"x"),
    "top is a file": b"",
    "cut short": member("a", content=b"x" * 512, size=4096),
    "junk": b"\x01junk" * 1000,
}


@pytest.mark.parametrize("case", HOSTILE)
async def test_hostile_archives(node, here, case):
    """Whatever a node sends, nothing is made outside of the target, and of a bad archive nothing is kept."""
    top = member(".", content=b"x") if case == "top is a file" else TOP
    channel = Hostile(node, top + HOSTILE[case] + bytes(1024))
    before = sorted(here.parent.rglob("*"))
    with pytest.raises(TransferError):
        await get(channel, "n", "x", here / "x")
    assert sorted(here.parent.rglob("*")) == before
    assert not Path("/tmp/wardian-evil").exists()


async def test_set_user_bits_are_dropped(node, here):
    """A file from a node never arrives as one that runs with its owner's rights."""
    await get(Hostile(node, TOP + member("a", content=b"x", mode=0o6755) + bytes(1024)), "n", "x", here / "x")
    assert (here / "x" / "a").stat().st_mode & 0o7777 == 0o755


async def test_a_name_that_comes_twice(node, here):
    """The later of two members of one name counts, and is not written through the first."""
    archive = TOP + member("a", content=b"first") + member("a", content=b"second") + bytes(1024)
    result = await get(Hostile(node, archive), "n", "x", here / "x")
    assert (here / "x" / "a").read_bytes() == b"second"
    assert result.files == 1


async def test_a_limit(channel, node, here):
    """More than `limit` bytes are refused before they are written."""
    (node / "t").mkdir()
    (node / "t" / "a").write_bytes(b"x" * 1000)
    (node / "t" / "b").write_bytes(b"x" * 1000)
    with pytest.raises(TransferError, match="larger than"):
        await get(channel, "n", "t", here / "x", limit=1500)
    assert os.listdir(here) == []


async def test_a_copy_that_differs(node, here):
    """A copy whose hash is not the node's is refused."""
    archive = io.BytesIO()
    archive.write(b"file\n" + member("a", content=b"x") + bytes(1024))

    class Lying(HostChannel):
        async def start(self, argv, **options):
            return await super().start(["sh", "-c", 'cat "$1"; echo "$2  -" >&2', "sh", str(node / "archive"), "0" * 64], **options)

    (node / "archive").write_bytes(archive.getvalue())
    with pytest.raises(TransferError, match="differs"):
        await get(Lying(node), "n", "a", here / "x")
    assert os.listdir(here) == []


@pytest.mark.long
@pytest.mark.slow
async def test_a_large_file_is_streamed(channel, node, here):
    """A file of 1 GiB crosses both ways without ever being in memory."""
    import resource

    with (here / "big").open("wb") as file:
        file.truncate(1 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await put(channel, "n", here / "big", "/dev/shm/wardian-test-big" if os.access("/dev/shm", os.W_OK) else "big")
    try:
        await get(channel, "n", "/dev/shm/wardian-test-big" if os.access("/dev/shm", os.W_OK) else "big", here / "back")
    finally:
        Path("/dev/shm/wardian-test-big").unlink(missing_ok=True)
    assert (here / "back").stat().st_size == 1 << 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 128 * 1024


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("client[0]:/path", Endpoint("client[0]", "/path")),
        ("client[0:4]:out", Endpoint("client[0:4]", "out")),
        ("server,client:/a:b", Endpoint("server,client", "/a:b")),
        ("server:", Endpoint("server", ".")),
        ("!server:new\nline", Endpoint("!server", "new\nline")),
        ("./a:b", Endpoint(None, "./a:b")),
        ("/abs/a:b", Endpoint(None, "/abs/a:b")),
        ("file", Endpoint(None, "file")),
        (":x", Endpoint(None, ":x")),
    ],
)
def test_endpoints(text, endpoint):
    """NODE:PATH names a node, all else a local path."""
    assert parse_endpoint(text) == endpoint
