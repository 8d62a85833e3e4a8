"""Images: pixel by pixel, else how like one another they are to the eye. Pure, but for libraries that decode (extra `data`).

Likeness is the mean structural similarity of brightness over windows of 8 x 8 pixels (Wang et al., "Image Quality Assessment: From Error
Visibility to Structural Similarity", IEEE Trans. Image Processing 13(4), 2004, equation 13), of the windows where either image shows
something: the empty ground of a figure would hide what its curves do.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import re
from io import BytesIO
from typing import Any

from . import text
from .numbers import Number
from .results import Finding, Place, Verdict
from .rules import Rules

RASTER = ("image/png", "image/jpeg", "image/gif", "image/webp")
_WINDOW = 8
_LARGEST = 1600
"""Longer sides are made smaller first, pixels."""
_CLOSE = 0.03
"""How much the sizes of two images may differ by, as a share: figures are cropped to what they show."""
# Names that drawing libraries make anew each time, and what says when and by what it was drawn.
_SVG_NAMES = re.compile(r"(\bid=\"|url\(#|href=\"#)[A-Za-z_][\w.:-]*")
_SVG_METADATA = re.compile(r"<metadata>.*?</metadata>|<!--.*?-->|<\?.*?\?>", re.DOTALL)


def compare(old: str, new: str, place: Place, rules: Rules) -> list[Finding]:
    """What differs between two images, as base64."""
    if "".join(old.split()) == "".join(new.split()):
        return []
    try:
        pillow, numpy = importlib.import_module("PIL.Image"), importlib.import_module("numpy")
    except ImportError:
        return [Finding(place, "image", Verdict.UNHONOURED, "", "", "comparing images takes Pillow and NumPy: pip install 'wardian[data]'")]
    try:
        one, other = _decoded(pillow, old), _decoded(pillow, new)
    except (binascii.Error, OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as error:
        return [Finding(place, "image", Verdict.DIFFERENT, "", "", f"an image cannot be decoded: {error}")]
    if one.size == other.size and one.tobytes() == other.tobytes():
        return [Finding(place, "format", Verdict.EQUAL, "", "", "the same picture, encoded otherwise")]
    if any(abs(a - b) > _CLOSE * max(a, b) for a, b in zip(one.size, other.size, strict=True)):
        was, now = (f"{size[0]} × {size[1]}" for size in (one.size, other.size))
        return [Finding(place, "image", Verdict.DIFFERENT, was, now, "pixels: the picture has another size")]
    likeness, worst = _likeness(numpy, pillow, one, other)
    fine = likeness >= rules.similarity
    where = "" if fine else f", most so around {worst[0]:.0%} of the width and {worst[1]:.0%} of the height"
    words = f"similarity {likeness:.3f}, {'at least' if fine else 'below'} {rules.similarity:g}{where}"
    pair = (Number("1", 1.0, "", 0.0), Number(f"{likeness:.3f}", likeness, "", 0.001))
    return [Finding(place, "image", Verdict.EQUAL if fine else Verdict.DIFFERENT, "", "", words, pair)]


def compare_svg(old: str, new: str, place: Place, rules: Rules) -> list[Finding]:
    """What differs between two drawings: their elements, as text with numbers."""
    if old == new:
        return []
    one, other = _plain_svg(old), _plain_svg(new)
    if one == other:
        return [Finding(place, "format", Verdict.EQUAL, "", "", "the same drawing, with other names inside")]
    return text.compare(one, other, place, rules)


def _decoded(pillow: Any, data: str) -> Any:
    image = pillow.open(BytesIO(base64.b64decode(data)))
    ground = pillow.new("RGBA", image.size, (255, 255, 255, 255))
    return pillow.alpha_composite(ground, image.convert("RGBA")).convert("RGB")


def _likeness(numpy: Any, pillow: Any, one: Any, other: Any) -> tuple[float, tuple[float, float]]:
    """Similarity, and where it is least: shares of width and height. Symmetric."""
    size = tuple(min(a, b) for a, b in zip(one.size, other.size, strict=True))
    scale = min(1.0, _LARGEST / max(size))
    size = tuple(max(round(side * scale), _WINDOW) for side in size)
    a, b = (numpy.asarray(image.resize(size) if image.size != size else image, dtype=float) for image in (one, other))
    # Colours count: two curves that changed places look alike in grey.
    values = [_similarity(numpy, a[:, :, channel], b[:, :, channel]) for channel in range(3)]
    shown = numpy.any([seen for _, seen in values], axis=0)
    index = numpy.min([map_ for map_, _ in values], axis=0)
    if not shown.any():
        return 1.0, (0.0, 0.0)
    row, column = numpy.unravel_index(numpy.where(shown, index, 2.0).argmin(), index.shape)
    return float(index[shown].mean()), ((column + 0.5) / index.shape[1], (row + 0.5) / index.shape[0])


def _similarity(numpy: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """Structural similarity of each window, and which windows show anything."""
    one, two = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = _means(numpy, a), _means(numpy, b)
    variance_a = numpy.maximum(_means(numpy, a * a) - mean_a**2, 0)
    variance_b = numpy.maximum(_means(numpy, b * b) - mean_b**2, 0)
    covariance = _means(numpy, a * b) - mean_a * mean_b
    index = ((2 * mean_a * mean_b + one) * (2 * covariance + two)) / ((mean_a**2 + mean_b**2 + one) * (variance_a + variance_b + two))
    return index, (variance_a > 1) | (variance_b > 1) | (numpy.abs(mean_a - mean_b) > 1)


def _means(numpy: Any, values: Any) -> Any:
    """Means of windows that overlap by half."""
    step = _WINDOW // 2
    rows, columns = (side // step * step for side in values.shape)
    blocks = values[:rows, :columns].reshape(rows // step, step, columns // step, step).mean(axis=(1, 3))
    return (blocks[:-1, :-1] + blocks[1:, :-1] + blocks[:-1, 1:] + blocks[1:, 1:]) / 4


def _plain_svg(markup: str) -> str:
    names: dict[str, str] = {}
    without = _SVG_METADATA.sub("", markup)

    def renamed(match: re.Match[str]) -> str:
        name = match[0][len(match[1]) :]
        return match[1] + names.setdefault(name, f"n{len(names)}")

    return _SVG_NAMES.sub(renamed, without).replace(">", ">\n")
