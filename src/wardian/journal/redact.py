"""Keeping secrets out of the record: by the names of values, by the shapes of well-known keys, and by what the environment holds."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

REDACTED = "[redacted]"

SHORTEST = 6
"""Of secrets that are looked for wherever they occur, characters. Shorter ones are words of every text."""
_REMEMBERED = 1024
"""So many texts of at most so many characters are not searched again: names of notebooks and environments come with every cell."""

_SECRET_WORDS = frozenset({
    "password", "passwords", "passwd", "passphrase", "pwd", "token", "secret", "secrets", "key",
    "apikey", "accesskey", "secretkey", "privatekey", "sshkey", "credential", "credentials",
})  # fmt: skip
_IN_TEXT = _SECRET_WORDS - {"key"}
"""A `key` of a text is most often that of a table; what it opens shows in the word before."""
_OPENS = frozenset({"api", "access", "secret", "private", "ssh", "auth", "signing", "encryption", "master", "account"})
_ENDS = ("password", "passwd", "passphrase", "secret", "token", "sshpass")
"""Of words that are secret, too: PGPASSWORD, authtoken."""
_PLACES = ("PWD", "OLDPWD")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

_VERSION = re.compile(r"v?\d[\w.+:~!^-]*")

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
    ("hf_", re.compile(r"\bhf_[A-Za-z0-9]{30,}")),
    ("pypi-", re.compile(r"\bpypi-[A-Za-z0-9_-]{30,}")),
    ("AIza", re.compile(r"\bAIza[0-9A-Za-z_-]{35}")),
    ("eyJ", re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}")),
    ("://", re.compile(r"(?<=://)[^/\s:@\"']*:[^/\s@\"']+(?=@)")),
    ("earer ", re.compile(r"(?<=[Bb]earer )[^\s\"']{16,}")),
)  # fmt: skip

_HINTS = ("pass", "pwd", "token", "secret", "key", "credential")
_ASSIGNED = re.compile(
    # password = "…", 'DB_PASSWORD': '…', os.environ["TOKEN"] = "…", {"apiKey": "…"}
    r"""(?P<name>[A-Za-z_][\w-]*)(?P<between>["']?\]?\s*(?::\s*str\s*)?[:=]\s*(?P<quote>["']))(?P<value>(?:\\.|(?!(?P=quote))[^\\\n])+)(?=(?P=quote))"""
    # DB_PASSWORD=…, as `env` prints it and shells take it; a reference to a variable tells nothing
    r"""|\b(?P<variable>[A-Z][A-Z0-9_]*)=(?P<bare>[^\s"'`;|&)$<][^\s"'`;|&)]*)"""
    # ?password=…&token=…
    r"""|(?P<before>[?&])(?P<field>\w+)=(?P<given>[^\s"'&#]+)"""
    # --password …, --token=…
    r"""|--(?P<option>[a-z][a-z-]*)(?P<equals>[= ])(?P<argument>[^\s"'$-][^\s"']*)"""
)


def is_secret_name(name: str) -> bool:
    """Whether a value of this name (`DB_PASSWORD`, `apiKey`) should be kept out of the record."""
    words = [word.lower() for word in _WORD.findall(name)]
    return _has_secret_word(words, _SECRET_WORDS)


def redact_text(text: str) -> str:
    """The text without what has the shape of a key, a password in a URL, or a value given to a secret name."""
    for hint, shape in _SHAPES:
        if hint in text:
            text = shape.sub(REDACTED, text)
    return _ASSIGNED.sub(_without_value, text) if _names_secrets(text) else text


def redact_values(value: Any, secret: Callable[[str], bool] = is_secret_name, text: Callable[[str], str] = redact_text) -> Any:
    """A JSON value with what stands under secret names replaced, at any depth. Switches and empty values stay: they tell nothing.

    secret: which names are. text: what is done to texts under other names.
    """
    if isinstance(value, Mapping):
        return {
            str(name): REDACTED
            if secret(str(name)) and not (isinstance(item, bool) or item in (None, ""))
            else redact_values(item, secret, text)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact_values(item, secret, text) for item in value]
    return text(value) if isinstance(value, str) else value


def redact_packages(installed: Any, text: Callable[[str], str] = redact_text) -> Any:
    """The versions of packages by name, as they are: `passwd` is one. What is under a secret name and no version goes.

    installed: {package: version}. text: what is done to versions.
    """
    if not isinstance(installed, Mapping) or not all(isinstance(version, str) for version in installed.values()):
        return redact_values(installed, text=text)
    return {
        name: text(version) if _VERSION.fullmatch(version) or not is_secret_name(str(name)) else REDACTED
        for name, version in installed.items()
    }


def redact_yaml(text: str) -> str:
    """The text of a YAML document without the values that stand under secret names in it. Text that is no YAML comes back as it is."""
    import yaml

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return text
    spans = sorted(_secret_spans(root, False, set()), reverse=True)
    for start, end in spans:
        # a block of lines ends with the end of its last one
        text = f"{text[:start]}{REDACTED!r}{text[end - text[start:end].endswith(chr(10)) :]}"
    return text


def secrets_in(values: Mapping[str, Any]) -> set[str]:
    """The texts under secret names in a mapping, such as the variables of a process, that are long enough to be looked for."""
    return {item for name, item in values.items() if isinstance(item, str) and len(item) >= SHORTEST and _is_secret_in_text(str(name))}


class Redactor:
    """Redacts texts, also of the very values that it was told to hide."""

    def __init__(self, hidden: Iterable[str] = ()) -> None:
        self._hidden: set[str] = set()
        self._look_for(None)
        self.hide(hidden)

    def hide(self, values: Iterable[str]) -> None:
        """Replace these wherever they occur from now on, also as JSON and URLs write them."""
        added = {value for value in values if len(value) >= SHORTEST} - self._hidden
        if not added:
            return
        self._hidden |= added
        forms = {form for value in self._hidden for form in (value, json.dumps(value)[1:-1], urllib.parse.quote(value, safe=""))}
        self._look_for(re.compile("|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))))

    def __call__(self, text: str) -> str:
        """A text without what it should not have."""
        return self._remembered(text) if len(text) <= _REMEMBERED else self._without(text)

    def json(self, text: str) -> str:
        """The text of a JSON document, redacted by value: it stays one."""
        # what is quoted within a document shows in its text only as far as no escape stands beside it
        if not (self._pattern is not None and self._pattern.search(text)) and not _may_tell(text):
            return text
        return json.dumps(redact_values(json.loads(text), _is_secret_in_text, self), separators=(",", ":"))

    def packages(self, text: str) -> str:
        """The same of a document that has the versions of packages by name."""
        return json.dumps(redact_packages(json.loads(text), self), separators=(",", ":"))

    def _look_for(self, hidden: re.Pattern[str] | None) -> None:
        self._pattern, self._without = hidden, partial(_without, hidden)
        # a memory of its own: what another thread searches just now, for less than this, does not come into it
        self._remembered = lru_cache(_REMEMBERED)(self._without)


def _without(hidden: re.Pattern[str] | None, text: str) -> str:
    return redact_text(text if hidden is None else hidden.sub(REDACTED, text))


def _tells(value: Any) -> bool:
    return not (isinstance(value, bool) or value in (None, ""))


def _may_tell(text: str) -> bool:
    return any(hint in text for hint, _ in _SHAPES) or _names_secrets(text)


def _names_secrets(text: str) -> bool:
    lower = text.lower()
    return any(hint in lower for hint in _HINTS)


def _is_secret_in_text(name: str) -> bool:
    words = [word.lower() for word in _WORD.findall(name)]
    if name in _PLACES:
        return False
    return _has_secret_word(words, _IN_TEXT) or any(last == "key" and word in _OPENS for word, last in pairwise(words))


def _has_secret_word(words: list[str], secret: frozenset[str]) -> bool:
    # DB_PASS is one, a `pass` alone is of many things
    return any(word in secret or word.endswith(_ENDS) for word in words) or (len(words) > 1 and words[-1] == "pass")


def _without_value(match: re.Match[str]) -> str:
    name = match["name"] or match["variable"] or match["option"] or match["field"]
    if not _is_secret_in_text(name):
        return match[0]
    if match["option"]:
        return f"--{name}{match['equals']}{REDACTED}"
    return f"{name}{match['between']}{REDACTED}" if match["name"] else f"{match['before'] or ''}{name}={REDACTED}"


def _secret_spans(node: Any, secret: bool, seen: set[int]) -> Iterable[tuple[int, int]]:
    """Where the scalars are that stand under secret names. node: of PyYAML; an alias leads to one that was seen already."""
    import yaml

    if isinstance(node, yaml.ScalarNode):
        switch = node.tag.endswith((":bool", ":null"))
        if secret and not switch and node.value and not re.fullmatch(r"\$\{\w+\}", node.value):
            yield node.start_mark.index, node.end_mark.index
    elif node is not None and id(node) not in seen:
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                yield from _secret_spans(value, secret or is_secret_name(str(key.value)), seen)
        else:
            for item in node.value:
                yield from _secret_spans(item, secret, seen)
