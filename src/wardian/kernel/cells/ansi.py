"""Colours of a terminal (SGR sequences, ECMA-48) in HTML, and text without them."""

from __future__ import annotations

import html
import re

_SEQUENCE = re.compile(r"\x1b\[([0-9;]*)m")
_OTHER = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])")
# Dark enough to be read on white, and light enough to be read on the dark themes of notebooks.
_COLOURS = ("#6e6e6e", "#d13438", "#1a8f3c", "#b07400", "#2f76d2", "#a347ba", "#128a96", "#8a8a8a")
_PALETTE = (0, 95, 135, 175, 215, 255)


def plain(text: str) -> str:
    """`text` without colours."""
    return _OTHER.sub("", text)


def to_html(text: str) -> str:
    """`text` escaped, with colours, bold, italics and underlining as spans."""
    parts: list[str] = []
    style: dict[str, str] = {}
    position = 0
    for match in _SEQUENCE.finditer(text):
        _add(parts, text[position : match.start()], style)
        _apply(style, [int(code or 0) for code in match[1].split(";")])
        position = match.end()
    _add(parts, text[position:], style)
    return "".join(parts)


def _add(parts: list[str], text: str, style: dict[str, str]) -> None:
    escaped = html.escape(plain(text))
    if escaped and style:
        css = ";".join(f"{name}:{value}" for name, value in style.items())
        parts.append(f'<span style="{css}">{escaped}</span>')
    else:
        parts.append(escaped)


def _apply(style: dict[str, str], codes: list[int]) -> None:
    while codes:
        code = codes.pop(0)
        if code == 0:
            style.clear()
        elif code == 1:
            style["font-weight"] = "bold"
        elif code == 3:
            style["font-style"] = "italic"
        elif code == 4:
            style["text-decoration"] = "underline"
        elif code in (22, 23, 24):
            style.pop({22: "font-weight", 23: "font-style", 24: "text-decoration"}[code], None)
        elif code in (39, 49):
            style.pop("color" if code == 39 else "background-color", None)
        elif code in (38, 48):
            colour = _extended(codes)
            if colour:
                style["color" if code == 38 else "background-color"] = colour
        elif 30 <= code <= 37 or 90 <= code <= 97:
            style["color"] = _COLOURS[code % 10]
        elif 40 <= code <= 47 or 100 <= code <= 107:
            style["background-color"] = _COLOURS[code % 10]


def _extended(codes: list[int]) -> str:
    """The colour of `5;n` (of 256) or `2;r;g;b`, taken off the front of `codes`."""
    kind = codes.pop(0) if codes else 0
    if kind == 5 and codes:
        number = codes.pop(0)
        if number < 16:
            return _COLOURS[number % 8]
        if number < 232:
            number -= 16
            return _rgb(_PALETTE[number // 36 % 6], _PALETTE[number // 6 % 6], _PALETTE[number % 6])
        grey = 8 + (number - 232) * 10
        return _rgb(grey, grey, grey)
    if kind == 2 and len(codes) >= 3:
        red, green, blue = codes[:3]
        del codes[:3]
        return _rgb(red, green, blue)
    return ""


def _rgb(*parts: int) -> str:
    return "#" + "".join(f"{min(part, 255):02x}" for part in parts)
