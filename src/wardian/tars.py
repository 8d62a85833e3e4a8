"""What everyone who reads an archive that is not trusted needs."""

from __future__ import annotations

import tarfile
from typing import Any

LONGEST_EXTENSION = 1 << 20
"""What a header extension (a long name, pax fields) may measure: the reader holds it in memory."""


LATEST = 1 << 40
"""No file is older or newer than that, seconds from 1970."""


class BadArchive(Exception):
    """The archive is damaged, or holds something that is not accepted."""


class Header(tarfile.TarInfo):
    """A header whose numbers are checked before anything is allocated or skipped by them."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Any:
        try:
            header = super().fromtarfile(archive)
        except (ValueError, OverflowError, RecursionError) as error:
            # what its extensions say is read without a check
            raise BadArchive("the archive is damaged: it has a header that says nothing") from error
        if header.size < 0 or not abs(header.mtime) < LATEST or "\0" in header.name + header.linkname:
            raise BadArchive(f"{header.name!r} has a size, a time or a target that no file has")
        return header

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Any:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise
            # only a block of zeros is the end of an archive; the reader would take this for one too
            raise BadArchive(f"the archive is damaged or cut short ({error})") from error
        if header.size < 0:
            raise BadArchive(f"{header.name!r} has a negative size")
        extension = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        if header.type in extension and header.size > LONGEST_EXTENSION:
            raise BadArchive(f"a header of {header.size} bytes is too long")
        return header
