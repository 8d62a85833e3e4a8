"""Archives of images become root file systems, whoever wrote them and whatever is in them."""

from __future__ import annotations

import json
import lzma
import multiprocessing
import os
import signal
import stat
import tarfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

try:
    from compression import zstd
except ImportError:
    from backports import zstd

from wardian.errors import ProviderError
from wardian.providers.images import store as stores
from wardian.providers.images.store import Store

from .archives import config, entry, layout, link, saved, tar

BASE = tar([
    entry("etc/", mode=0o755), entry("etc/plant", b"fern"), entry("etc/gone", b"x"), entry("etc/kept/"), entry("etc/kept/old", b"x"),
    entry("usr/bin/", mode=0o755), link("bin", "usr/bin"), link("abs", "/etc"), entry("/rooted", b"r"), entry("usr/dir/"),
    entry("usr/dir/a", b"a"), entry("same", kind=tarfile.LNKTYPE, to="etc/plant"), entry("proc", kind=tarfile.SYMTYPE, to="/etc"),
])  # fmt: skip
TOP = tar([
    entry("etc/.wh.gone"), entry("etc/kept/new", b"n"), entry("etc/kept/.wh..wh..opq"), entry("bin/sudo", b"s", mode=0o4755),
    entry("abs/through", b"t"), entry("etc/plant", b"one"), entry("etc/plant", b"moss"), entry("usr/dir", b"a file now"),
    entry("dev/null", kind=tarfile.CHRTYPE), entry("usr/.wh.not-there"), entry("usr/locked/", mode=0o500), entry("usr/locked/in", b"i"),
])  # fmt: skip
ABOUT = config([BASE, TOP], Env=["PLANT=fern", "PATH=/opt/bin:/bin"], User="nobody", WorkingDir="/srv")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with nothing in it."""
    return Store(tmp_path / "store")


def archives(folder: Path) -> list[Path]:
    """One image, in all the ways in which it may be kept."""
    files = layout([BASE, TOP], ABOUT, "localhost/lab:2")
    for name, data in files.items():
        (folder / "layout" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "layout" / name).write_bytes(data)
    (folder / "oci.tar").write_bytes(tar([entry(name, data) for name, data in files.items()]))
    plain = saved(folder / "saved.tar", [BASE, TOP], ABOUT, "lab:1")
    (folder / "saved.tar.xz").write_bytes(lzma.compress(plain.read_bytes()))
    return [plain, folder / "oci.tar", folder / "layout", folder / "saved.tar.xz"]


def test_one_image_in_all_its_formats(store: Store, tmp_path: Path) -> None:
    """What `docker save` and OCI tools write of one image is one image here, with its layers laid over one another as an Engine does it."""
    found = [store.add(path) for path in archives(tmp_path)]
    assert len({stored.digest for stored in found}) == 1
    (stored,) = store.all()
    assert stored.names == ("lab:1", "lab:2")
    assert stored.environment == {"PLANT": "fern", "PATH": "/opt/bin:/bin"}
    root = stored.rootfs
    there = {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir() or path.is_symlink()}
    assert there == {
        "etc/plant", "etc/kept/new", "etc/through", "usr/bin/sudo", "usr/dir", "usr/locked/in", "rooted", "same", "bin", "abs",
    }  # fmt: skip
    assert (root / "etc/plant").read_text() == "moss"
    assert (root / "same").read_text() == "fern"
    assert stat.S_IMODE((root / "usr/bin/sudo").stat().st_mode) == 0o4755
    assert stat.S_IMODE((root / "usr/locked").stat().st_mode) == 0o500
    assert not (root / "proc").is_symlink()
    # setuid programs of strangers are nobody's but the user's
    assert stat.S_IMODE(store.root.stat().st_mode) == 0o700


def test_a_root_file_system_is_one_image_packed_or_not(store: Store, tmp_path: Path) -> None:
    """A tar of a root file system, compressed or not, is one image; and a folder that did not change is the same image again."""
    (tmp_path / "root.tar").write_bytes(BASE)
    (tmp_path / "root.tar.xz").write_bytes(lzma.compress(BASE))
    (tmp_path / "root.tar.zst").write_bytes(zstd.compress(BASE))
    packed = [store.add(path, name="lab:1") for path in sorted(tmp_path.glob("root.tar*"))]
    assert len({stored.digest for stored in packed}) == 1
    (tmp_path / "root" / "etc").mkdir(parents=True)
    assert store.add(tmp_path / "root").digest == store.add(tmp_path / "root").digest
    assert store.get("lab:1").kind == "root file system"


def hostile() -> dict[str, tuple[bytes, str]]:
    """{what is wrong: (a layer, what is said about it)}."""
    outside = link("out", "/tmp/wardian-escaped")
    return {
        "up": (tar([entry("../escaped", b"x")]), "leads out"),
        "up within": (tar([entry("a/"), entry("a/../../escaped", b"x")]), "leads out"),
        "hard link up": (tar([entry("copy", kind=tarfile.LNKTYPE, to="../../etc/passwd")]), "leads out"),
        "hard link through a link": (tar([link("e", "/etc"), entry("copy", kind=tarfile.LNKTYPE, to="e/passwd")]), "no file of it"),
        "loop": (tar([link("a", "b"), link("b", "a"), entry("a/x", b"x")]), "without end"),
        "whiteout of all": (tar([outside, entry(".wh...", b"")]), "has a name"),
        "through a file": (tar([entry("a", b"x"), entry("a/b", b"x")]), "through a file"),
        "cut short": (BASE[:700], "cannot be unpacked"),
        "empty": (tar([]), "empty"),
        "bomb": (tar([entry(str(number), bytes(3 << 20)) for number in range(4)]), "larger than the 8 MiB allowed"),
        "time": (tar([entry("a", b"x", pax_headers={"mtime": "nan"})]), "that no file has"),
        "size": (tar([entry("a", b"x", pax_headers={"size": "-1024"})]), "that no file has"),
        "sparse": (tar([entry("a", b"x", pax_headers={"GNU.sparse.map": "a", "GNU.sparse.size": "3"})]), "says nothing"),
        "link to NUL": (tar([entry("a", kind=tarfile.SYMTYPE, to="x", pax_headers={"linkpath": "a\0b"})]), "that no file has"),
        "names without end": (3000 * tarfile.TarInfo("x" * 200).tobuf(tarfile.GNU_FORMAT)[:1024] + BASE, "says nothing"),
        "long header": (b"".join((tarfile.TarInfo("x" * 5).tobuf()[:156], b"L", bytes(355))) + bytes(512), "cannot be unpacked"),
    }


@pytest.mark.parametrize("what", hostile())
def test_hostile_layers_are_refused(store: Store, tmp_path: Path, what: str) -> None:
    """A layer that leads out of the tree, or is more than is allowed, is an error that says so; nothing of it stays, nor is outside."""
    layer, said = hostile()[what]
    path = saved(tmp_path / "bad.tar", [layer], config([layer]))
    with pytest.raises(ProviderError, match="cannot be unpacked") as caught:
        store.add(path, limit=8 << 20)
    assert said in caught.value.message
    assert not list(tmp_path.rglob("escaped"))
    assert store.all() == []
    assert not [name for name in os.listdir(store.root / "sha256") if not name.endswith(".lock")]


def test_links_lead_nowhere_on_the_host(store: Store, tmp_path: Path) -> None:
    """What is written through a link, absolute or upwards, lands where the node would see it, and on no other file system."""
    target = tmp_path / "host"
    (target / "sub").mkdir(parents=True, mode=0o700)
    layers = [
        tar([entry("c/sub/", mode=0o777), link("a", str(target)), link("b", "../../../../../../etc"), entry("a/x", b"x")]),
        tar([entry("b/y", b"y"), entry("b/.wh.passwd"), link("c", str(target))]),
    ]
    root = store.add(saved(tmp_path / "links.tar", layers, config(layers))).rootfs
    assert [path.name for path in target.iterdir()] == ["sub"]
    assert stat.S_IMODE((target / "sub").stat().st_mode) == 0o700
    assert (root / str(target).lstrip("/") / "x").read_text() == "x"
    assert (root / "etc/y").read_text() == "y"
    assert Path("/etc/passwd").exists()


def test_what_is_not_what_its_digest_says_is_refused(store: Store, tmp_path: Path) -> None:
    """A layer, a blob or a configuration that was changed is refused, and so are images of other machines and archives of several."""
    other = tar([entry("etc/plant", b"ivy")])
    with pytest.raises(ProviderError, match="layer 2 is not what its digest says"):
        store.add(saved(tmp_path / "layer.tar", [BASE, other], ABOUT))
    files = layout([BASE, TOP], ABOUT)
    changed = {name: data + b" " if data == ABOUT else data for name, data in files.items()}
    (tmp_path / "blob.tar").write_bytes(tar([entry(name, data) for name, data in changed.items()]))
    with pytest.raises(ProviderError, match="is not what its digest says"):
        store.add(tmp_path / "blob.tar")
    foreign = layout([BASE, TOP], ABOUT, architecture="pdp11")
    (tmp_path / "foreign.tar").write_bytes(tar([entry(name, data) for name, data in foreign.items()]))
    with pytest.raises(ProviderError, match="no image for linux/"):
        store.add(tmp_path / "foreign.tar")
    (tmp_path / "no.tar").write_bytes(b"no archive at all")
    with pytest.raises(ProviderError, match=r"no\.tar cannot be unpacked"):
        store.add(tmp_path / "no.tar")
    assert store.all() == []


@pytest.mark.parametrize(
    "wrong", [{"manifests": 3}, {"manifests": [{"annotations": [1]}, 5]}, {"manifests": [{"digest": 7}]}, {"manifests": None}]
)
def test_an_index_of_anything_is_an_error(store: Store, tmp_path: Path, wrong: dict[str, object]) -> None:
    """An index that holds other things than one does is refused, whatever they are; so is a configuration."""
    files = layout([BASE], config([BASE])) | {"index.json": json.dumps(wrong).encode()}
    (tmp_path / "wrong.tar").write_bytes(tar([entry(name, data) for name, data in files.items()]))
    about = json.dumps(json.loads(config([BASE])) | {"rootfs": [wrong]}).encode()
    for path in (tmp_path / "wrong.tar", saved(tmp_path / "other.tar", [BASE], about)):
        with pytest.raises(ProviderError, match="cannot be unpacked"):
            store.add(path)


def test_names_move(store: Store, tmp_path: Path) -> None:
    """A name goes to the image that was given it last; an archive that only is unpacked gives none. No name is taken for a file of ours."""
    layers = [tar([entry("a", content)]) for content in (b"1", b"2")]
    first, second = (saved(tmp_path / f"{number}.tar", [layer], config([layer]), "lab:1") for number, layer in enumerate(layers))
    assert store.add(first, named=False).names == ()
    assert store.add(first).names == ("lab:1",)
    assert store.add(second, named=False).names == ()
    assert store.add(second, name="my.parts:2").names == ("lab:1", "my.parts:2")
    assert store.get("lab:1").digest == store.get("my.parts:2").digest
    assert [store.find(name) for name in ("", ".", "..")] == [None] * 3


def _add(root: Path, path: Path, queue: multiprocessing.Queue[str], half: Connection | None = None) -> None:
    if half:
        # stands still half way, with the lock
        stores.flatten = lambda image, target, *_: (target.mkdir(), half.send("half"), signal.pause())  # type: ignore[assignment]
    queue.put(Store(root).add(path).digest)


def test_two_at_once_and_one_that_is_killed(store: Store, tmp_path: Path) -> None:
    """Who is killed while unpacking leaves nothing that anyone takes for an image; those that need it at once unpack it once."""
    path = archives(tmp_path)[0]
    context = multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[str] = context.Queue()
    # not by the queue: who is killed may hold its lock still
    said, half = context.Pipe(duplex=False)
    first = context.Process(target=_add, args=(store.root, path, queue, half))
    first.start()
    assert said.poll(60)
    assert store.all() == []
    others = [context.Process(target=_add, args=(store.root, path, queue)) for _ in range(2)]
    for process in others:
        process.start()
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    digests = {queue.get(timeout=60) for _ in others}
    for process in (first, *others):
        process.join()
    assert digests == {stored.digest for stored in store.all()}
    assert (store.all()[0].rootfs / "etc/plant").read_text() == "moss"
    assert store.unfinished() == []


def test_what_is_used_stays(store: Store, tmp_path: Path) -> None:
    """An image that a node uses is not removed, and one with a name only on demand; what nothing uses goes with all that names it."""
    stored = store.add(archives(tmp_path)[0])
    user = tmp_path / "node"
    user.mkdir()
    assert store.claim(stored, user, "server of lab-1")
    with pytest.raises(ProviderError, match=r"lab:1 is used by server of lab-1"):
        store.remove(store.get("lab:1"))
    assert store.collect(time.time(), named=True) == []
    user.rmdir()
    assert store.collect(time.time(), named=False) == []
    assert [gone.digest for gone in store.collect(time.time(), named=True, really=False)] == [stored.digest]
    assert store.find(stored.digest[7:20]) is not None
    store.remove(store.get(stored.digest[7:20]))
    assert (store.all(), store.find("lab:1")) == ([], None)
    assert not store.claim(stored, tmp_path, "too late")
