"""Bundles that somebody else made: what is hostile or damaged is refused, says why, and leaves nothing."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wardian.errors import BundleError, JournalError
from wardian.replay.bundle import JOURNAL, MANIFEST, METADATA, reading
from wardian.replay.bundle.unpacking import making, unpack

FILE = b"name: x\nnodes: [one]\n"
Change = Callable[[zipfile.ZipFile], None]


def make(path: Path, change: Change | None = None, manifest: Any = None, **files: bytes) -> Path:
    """A bundle with an experiment, the given files, and whatever a test adds to it."""
    contents = {"experiment.yaml": FILE, **files}
    told = [{"@id": name, "sha256": hashlib.sha256(data).hexdigest()} for name, data in contents.items()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
        archive.writestr(MANIFEST, json.dumps(manifest or {"version": 1, "experiment": "experiment.yaml", "notebooks": []}))
        archive.writestr(METADATA, json.dumps({"@graph": told}))
        if change is not None:
            change(archive)
    return path


def entry(name: str, mode: int = stat.S_IFREG | 0o644, data: bytes = b"/etc/passwd", **fields: Any) -> Change:
    def change(archive: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo("x")
        # set after its making, which would clean it
        info.filename, info.create_system, info.external_attr = name, 3, mode << 16
        for field, value in fields.items():
            setattr(info, field, value)
        archive.writestr(info, data)

    return change


def twice(archive: zipfile.ZipFile) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("experiment.yaml", b"name: other\n")


def bomb(archive: zipfile.ZipFile) -> None:
    archive.writestr("zeros", bytes(40_000_000))


def many(archive: zipfile.ZipFile) -> None:
    for number in range(50):
        archive.writestr(f"e{number}", b"")


HOSTILE: dict[str, tuple[Change, str]] = {
    "upwards": (entry("../evil"), "leads elsewhere"),
    "upwards within": (entry("a/../../evil"), "leads elsewhere"),
    "absolute": (entry("/tmp/evil"), "absolute path"),
    "backslashes": (entry("..\\evil"), "absolute path"),
    "a drive": (entry("C:evil"), "absolute path"),
    "a NUL": (entry("evil\0.txt"), "leads elsewhere"),
    "an escape sequence": (entry("\x1b[2Jevil"), "leads elsewhere"),
    "a name from right to left": (entry("evil\u202etxt.py"), "leads elsewhere"),
    "an empty part": (entry("a//evil"), "leads elsewhere"),
    "git's hooks": (entry("sub/.GIT/hooks/post-checkout"), "that programs trust"),
    "a journal of its own": (entry(".wardian/journal.db"), "that programs trust"),
    "a long name": (entry("n" * 300), "too long"),
    "a link": (entry("link", stat.S_IFLNK | 0o777), "link, a device"),
    "a device": (entry("null", stat.S_IFCHR | 0o666), "link, a device"),
    "a pipe": (entry("pipe", stat.S_IFIFO | 0o666), "link, a device"),
    "a folder that is a file": (entry("folder/", stat.S_IFREG | 0o644, b""), "link, a device"),
    "a file below a file": (entry("experiment.yaml/evil"), "below a file"),
    "another packing": (entry("evil", compress_type=zipfile.ZIP_LZMA), "packed in a way"),
    "one name twice": (twice, "twice"),
    "one name in two forms": (lambda archive: [entry(name)(archive) for name in ("e\u0301", "\u00e9")] and None, "twice"),
    "a bomb": (bomb, "unpacks to 40 MB"),
    "many entries": (many, "more than 50 entries"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_bundles_are_refused(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle with a name that leads elsewhere, a link, a device or a bomb is refused as a whole; no file of it is left anywhere."""
    monkeypatch.setattr(reading, "MOST_ENTRIES", 50)
    change, why = HOSTILE[what]
    bundle = make(tmp_path / "hostile.zip", change)
    with pytest.raises(BundleError, match=why) as caught:
        unpack(bundle, tmp_path / "below" / "target")
    assert "hostile.zip is refused" in caught.value.message
    assert caught.value.message.isprintable()
    assert [path.name for path in tmp_path.rglob("*")] == ["hostile.zip"]


def patched(bundle: Path, old: bytes, new: bytes, count: int = -1) -> None:
    data = bundle.read_bytes()
    assert old in data
    bundle.write_bytes(data.replace(old, new, count))


def test_sizes_that_lie(tmp_path: Path) -> None:
    """An entry that unpacks to more or less than it declares, or whose content was changed, is refused while it is read."""
    larger = make(tmp_path / "larger.zip", study=b"x" * 5000)
    # the size is in its own head and in the list of entries
    patched(larger, struct.pack("<L", 5000), struct.pack("<L", 50))
    with pytest.raises(BundleError, match=r"study is (damaged|larger)"):
        unpack(larger, tmp_path / "target")
    smaller = make(tmp_path / "smaller.zip", study=b"x" * 5000)
    patched(smaller, struct.pack("<L", 5000), struct.pack("<L", 50_000))
    with pytest.raises(BundleError, match=r"study is (damaged|smaller)"):
        unpack(smaller, tmp_path / "target")
    swapped = make(tmp_path / "swapped.zip")
    with zipfile.ZipFile(swapped) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()} | {"experiment.yaml": FILE + b"# other\n"}
    with zipfile.ZipFile(swapped, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    with pytest.raises(BundleError, match=r"experiment\.yaml is not what its SHA-256"):
        unpack(swapped, tmp_path / "target")
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".zip"]


def test_entries_that_overlap(tmp_path: Path) -> None:
    """A bomb whose entries share their packed bytes, so that each by itself looks harmless, is refused."""
    bundle = make(tmp_path / "overlap.zip", kernel=os.urandom(20_000))
    data = bundle.read_bytes()
    with zipfile.ZipFile(bundle) as archive:
        shared = archive.getinfo("kernel").header_offset
        start = archive.start_dir
    directory = data[start : data.rindex(b"PK\5\6")]
    at = directory.index(b"kernel") - 46
    record = directory[at : at + 52]
    copies = b"".join(record.replace(b"kernel", b"kerne%d" % number) for number in range(5))
    end = bytearray(data[data.rindex(b"PK\5\6") :])
    count = struct.unpack("<H", end[10:12])[0] + 5
    struct.pack_into("<HHL", end, 8, count, count, len(directory) + len(copies))
    assert struct.unpack("<L", record[42:46])[0] == shared
    bundle.write_bytes(data[:start] + directory + copies + bytes(end))
    with pytest.raises(BundleError, match="overlap"):
        unpack(bundle, tmp_path / "target")


def test_a_list_of_entries_that_fills_the_memory(tmp_path: Path) -> None:
    """A file that says it has millions of entries is refused before they are read."""
    bundle = make(tmp_path / "list.zip")
    data = bytearray(bundle.read_bytes())
    end = data.rindex(b"PK\5\6")
    struct.pack_into("<HHL", data, end + 8, 0xFFFF, 0xFFFF, 4_000_000_000)
    bundle.write_bytes(data)
    with pytest.raises(BundleError, match="entries"):
        unpack(bundle, tmp_path / "target")


def test_what_is_no_bundle(tmp_path: Path) -> None:
    """What is no zip, a part of one, another zip, or of another layout is one clear error."""
    text = tmp_path / "text.zip"
    text.write_text("hello")
    part = make(tmp_path / "part.zip", study=os.urandom(10_000))
    part.write_bytes(part.read_bytes()[:9000])
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("readme", b"hello")
    newer = make(tmp_path / "newer.zip", manifest={"version": 2})
    astray = make(tmp_path / "astray.zip", manifest={"version": 1, "experiment": "../experiment.yaml", "notebooks": []})
    for bundle, why in ((text, "no whole zip"), (part, "no whole zip"), (other, "no bundle"), (newer, "upgrade"), (astray, "names")):
        with pytest.raises(BundleError) as caught:
            unpack(bundle, tmp_path / "target")
        assert why in str(caught.value)
    assert not (tmp_path / "target").exists()


def test_where_something_stands_already(tmp_path: Path) -> None:
    """A folder with files stays as it is; an empty one, and one that this very bundle was unpacked into, are taken."""
    bundle = make(tmp_path / "study.crate.zip")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    with pytest.raises(BundleError, match="not empty"):
        unpack(bundle, tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]
    (tmp_path / "empty").mkdir()
    found = unpack(bundle, tmp_path / "empty")
    assert found.experiment.read_bytes() == FILE
    found.experiment.write_text("edited")
    assert unpack(bundle, tmp_path / "empty").experiment.read_text() == "edited"
    with making(tmp_path / "held"), pytest.raises(BundleError, match="another command"):
        unpack(bundle, tmp_path / "held")


def test_killed_in_the_middle(tmp_path: Path) -> None:
    """What a process that was killed left is no target, and the next one makes a whole of it."""
    bundle = make(tmp_path / "study.zip")
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom wardian.replay.bundle import unpacking\n"
        f"with unpacking.making(Path({str(tmp_path / 'study')!r})) as partial:\n"
        "    (partial / 'old').mkdir(); (partial / 'old' / 'half').write_text('half'); os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == -9
    assert not (tmp_path / "study").exists()
    unpack(bundle, tmp_path / "study")
    assert sorted(path.name for path in (tmp_path / "study").iterdir()) == [
        ".wardian", "experiment.yaml", METADATA, MANIFEST.partition("/")[0],
    ]  # fmt: skip
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (['{"format":"other"}'], "line 1: not the head"),
        (['{"format":"wardian-journal","version":9}'], "line 1: version 9"),
        (['{"format":"wardian-journal","version":1}', "[]"], "line 2: not an object"),
        (['{"format":"wardian-journal","version":1}', '{"table":"writers"}'], "no table 'writers'"),
        (['{"format":"wardian-journal","version":1}', '{"content":"00","text":"{}"}'], "SHA-256"),
        (['{"format":"wardian-journal","version":1}', '{"table":"events","id":7}'], "id: 7 is no str"),
        (['{"format":"wardian-journal","version":1}', "[" * 100_000], "line 2"),
    ],
)
def test_a_journal_that_is_none(tmp_path: Path, lines: list[str], why: str) -> None:
    """An extract of the journal that is damaged or made up is refused with its line, and nothing of it is recorded."""
    bundle = make(tmp_path / "study.zip", **{JOURNAL: "\n".join(lines).encode()})
    with pytest.raises(JournalError, match=why):
        unpack(bundle, tmp_path / "study")
