"""Keeping secrets out of the record: by the names of values, and by the shapes of well-known keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

REDACTED = "[redacted]"

_SECRET_WORDS = frozenset(
    [
        "password",
        "passwords",
        "passwd",
        "passphrase",
        "pwd",
        "token",
        "secret",
        "secrets",
        "key",
        "apikey",
        "accesskey",
        "secretkey",
        "privatekey",
        "sshkey",
        "credential",
        "credentials",
    ]
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

_PEM = r"(?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?"

# the first of each pair is a cheap test that rules out nearly every text
_SHAPES = (
    ("PRIVATE KEY", re.compile(rf"-----BEGIN {_PEM}-----.*?(?:-----END {_PEM}-----|\Z)", re.DOTALL)),
    ("gh", re.compile(r"\bgh[opusr]_[A-Za-z0-9]{30,}")),
    ("github_pat_", re.compile(r"\bgithub_pat_[A-Za-z0-9_]{30,}")),
    ("glpat-", re.compile(r"\bglpat-[A-Za-z0-9_-]{20,}")),
    ("KIA", re.compile(r"\bAKIA[0-9A-Z]{16}\b")),
    ("SIA", re.compile(r"\bASIA[0-9A-Z]{16}\b")),
    ("xox", re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{10,}")),
    ("sk-", re.compile(r"\bsk-[A-Za-z0-9_-]{20,}")),
    ("AIza", re.compile(r"\bAIza[0-9A-Za-z_-]{35}")),
    ("eyJ", re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}")),
    ("://", re.compile(r"(?<=://)[^/\s:@\"']*:[^/\s@\"']+(?=@)")),
)  # fmt: skip


def is_secret_name(name: str) -> bool:
    """Whether a value of this name (`DB_PASSWORD`, `apiKey`) should be kept out of the record."""
    return any(word.lower() in _SECRET_WORDS for word in _WORD.findall(name))


def redact_text(text: str) -> str:
    """The text with everything that has the shape of a key or a password in a URL replaced."""
    for hint, shape in _SHAPES:
        if hint in text:
            text = shape.sub(REDACTED, text)
    return text


def redact_values(value: Any) -> Any:
    """A JSON value with what stands under secret names replaced, at any depth. Switches and empty values stay: they tell nothing."""
    if isinstance(value, Mapping):
        return {
            str(name): REDACTED if is_secret_name(str(name)) and not (isinstance(item, bool) or item in (None, "")) else redact_values(item)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact_values(item) for item in value]
    return redact_text(value) if isinstance(value, str) else value
