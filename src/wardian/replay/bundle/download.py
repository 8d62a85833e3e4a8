"""Bundles that a server of the web has, such as those of an archive: brought here over https before anything of them is read."""

from __future__ import annotations

import http.client
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ...errors import BundleError
from ...journal.redact import redact_text
from .reading import MOST_BYTES, room

_SECONDS = 60.0
"""How long a server may say nothing."""
_CHUNK = 1 << 20


def is_bundle_url(text: str) -> bool:
    """Whether this is the https address of a bundle: its path ends with .zip."""
    try:
        return text.startswith("https://") and urllib.parse.urlsplit(text).path.endswith(".zip")
    except ValueError:
        return False


@contextmanager
def downloaded(url: str) -> Iterator[Path]:
    """The bundle at an https address as a file of the same name, for as long as the block lasts. Raises BundleError."""
    parts = urllib.parse.urlsplit(url)
    name = urllib.parse.unquote(parts.path).rpartition("/")[2]
    if parts.username is not None or not parts.hostname or name.startswith(".") or not name.isprintable() or "\\" in name:
        expected = "expected https://HOST/PATH/NAME.crate.zip, without a password"
        raise BundleError(f"{redact_text(url)}: no address of a bundle", remedy=expected)
    with tempfile.TemporaryDirectory(prefix="wardian-bundle-") as folder:
        path = Path(folder) / name
        try:
            with urllib.request.build_opener(_OnlyHttps).open(url, timeout=_SECONDS) as answer, open(path, "wb") as file:
                _copy(answer, file, Path(folder), int(answer.headers.get("Content-Length") or 0))
        except (OSError, ValueError, http.client.HTTPException) as error:
            why = getattr(error, "reason", None) or error
            remedy = "check the address; SSL_CERT_FILE names the authorities of a server of your own"
            raise BundleError(f"{redact_text(url)} cannot be fetched: {why}", remedy=remedy) from error
        yield path


def _copy(source: IO[bytes], target: IO[bytes], folder: Path, said: int) -> None:
    room(folder, said)
    size = 0
    while chunk := source.read(_CHUNK):
        size += len(chunk)
        if size > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES >> 30} GiB")
        target.write(chunk)
    if size < said:
        raise ValueError(f"it ends after {size} of {said} bytes")


class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    """An archive may send us on to where it keeps files, but not to where anybody could change them on their way, nor to files here."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not newurl.startswith("https://"):
            raise urllib.error.URLError(f"it leads on to {redact_text(newurl)}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
