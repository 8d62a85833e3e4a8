"""Formulas of a notebook as MathML, which browsers draw with no script and no font of ours."""

from __future__ import annotations

import html
import re
from typing import Any
from xml.etree import ElementTree

from jinja2 import pass_context
from jinja2.runtime import Context
from latex2mathml import exceptions
from latex2mathml.converter import convert_to_element
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

_NOT_UNDERSTOOD: tuple[type[Exception], ...] = (
    # the library's own have no common base, and what is no TeX at all runs into these
    *(item for item in vars(exceptions).values() if isinstance(item, type) and issubclass(item, Exception)),
    LookupError, ValueError, TypeError, AttributeError, StopIteration, RecursionError,
)  # fmt: skip


def mathml(tex: str, *, block: bool) -> str:
    """A formula in TeX as MathML, or as it is written where it is not understood. block: on a line of its own."""
    written = f"$${tex}$$" if block else f"${tex}$"
    try:
        root = convert_to_element(tex, display="block" if block else "inline")
    except _NOT_UNDERSTOOD:
        return html.escape(written)
    for element in root.iter():
        # the library leaves entities and markup in texts for whoever writes them out
        element.text = html.unescape(element.text) if element.text else None
        element.attrib.pop("href", None)
        if re.fullmatch(r"\\[A-Za-z]+", element.text or ""):
            return html.escape(written)
    root.set("alttext", tex.strip())
    return ElementTree.tostring(root, encoding="unicode")


def displayed(text: str) -> str:
    """What a cell displays as LaTeX: a formula between dollars or brackets, or text with some."""
    stripped = text.strip()
    for begin, end, block in (("$$", "$$", True), (r"\[", r"\]", True), (r"\(", r"\)", False), ("$", "$", False)):
        inner = stripped[len(begin) : -len(end)]
        if stripped.startswith(begin) and stripped.endswith(end) and len(stripped) > len(begin + end) and begin not in inner:
            return mathml(inner.replace(r"\displaystyle", ""), block=block or r"\displaystyle" in inner)
    return mathml(stripped, block=True) if stripped.startswith(r"\begin{") else html.escape(text)


class _Renderer(IPythonRenderer):  # type: ignore[misc]
    def block_math(self, body: str) -> str:
        return mathml(body, block=True)

    def inline_math(self, body: str) -> str:
        return mathml(body, block=False)

    def latex_environment(self, name: str, body: str) -> str:
        return mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", block=True)


class Exporter(HTMLExporter):  # type: ignore[misc]
    """nbconvert's, but that formulas are drawn."""

    @pass_context
    def markdown2html(self, context: Context, source: str) -> str:
        """Markdown as HTML, with its formulas as MathML."""
        attachments = context.get("cell", {}).get("attachments", {})
        path = context.get("resources", {}).get("metadata", {}).get("path", "")
        renderer = _Renderer(escape=False, attachments=attachments, path=path, anchor_link_text=self.anchor_link_text)
        return str(MarkdownWithMath(renderer=renderer).render(source))

    def default_filters(self) -> Any:
        """Those of nbconvert, and `displayed`."""
        yield from super().default_filters()
        yield "latex2mathml", displayed
