"""Pages of headings, sentences, lists and tables, as Markdown and as HTML that stands alone."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; font-size: 13px; margin: 1em 0; }
th, td { border: 1px solid #ccc; padding: 3px 8px; text-align: left; }
th { background: #f2f2f2; } img { max-width: 100%; } code { background: #f2f2f2; }
"""


@dataclass
class Page:
    """Blocks of text one below the other; what they say may hold any characters.

    Attributes:
        title: Of the page.
        blocks: As methods have added them.

    Example:

    >>> page = Page("A card").heading("Data").text("7 rows | few").table(["a"], [[1.25]])
    >>> print(page.markdown())
    # A card
    <BLANKLINE>
    ## Data
    <BLANKLINE>
    7 rows \\| few
    <BLANKLINE>
    | a |
    | --- |
    | 1.25 |
    <BLANKLINE>
    """

    title: str
    blocks: list[tuple[str, Any]] = field(default_factory=list)

    def heading(self, text: str) -> Page:
        return self._with("heading", text)

    def text(self, text: str) -> Page:
        return self._with("text", text)

    def items(self, items: Iterable[str]) -> Page:
        return self._with("items", list(items))

    def table(self, heads: Sequence[Any], rows: Iterable[Sequence[Any]]) -> Page:
        return self._with("table", (list(heads), [list(row) for row in rows]))

    def _with(self, kind: str, what: Any) -> Page:
        self.blocks.append((kind, what))
        return self

    def markdown(self) -> str:
        blocks = [f"# {_plain(self.title)}", *(_markdown(*block) for block in self.blocks)]
        return "\n\n".join(blocks) + "\n"

    def html(self) -> str:
        return html_page(self.title, [_html(*block) for block in self.blocks])


def html_page(title: str, parts: Iterable[str]) -> str:
    """A page that needs nothing beside it, of parts that are HTML already."""
    title = html.escape(title)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style><h1>{title}</h1>{''.join(parts)}</html>"
    )


def html_heading(text: str) -> str:
    return f"<h2>{html.escape(text)}</h2>"


def html_text(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def html_table(heads: Sequence, rows: Iterable[Sequence]) -> str:
    def line(cells: Sequence, tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(c))}</{tag}>" for c in cells) + "</tr>"

    return f"<table>{line(heads, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _html(kind: str, what: Any) -> str:
    if kind == "table":
        return html_table(*what)
    if kind == "items":
        return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in what) + "</ul>"
    return html_heading(what) if kind == "heading" else html_text(what)


def _markdown(kind: str, what: Any) -> str:
    if kind == "heading":
        return f"## {_plain(what)}"
    if kind == "items":
        return "\n".join(f"- {_plain(item)}" for item in what)
    if kind == "table":
        heads, rows = what
        lines = [heads, ["---"] * len(heads), *rows]
        cells = [[c if line is lines[1] else _plain(str(c)) for c in line] for line in lines]
        return "\n".join(f"| {' | '.join(line)} |" for line in cells)
    return _plain(what)


def _plain(text: str) -> str:
    """Text in which no character means anything to Markdown, in one line."""
    text = " ".join(text.split())
    return re.sub(r"([\\`*{}\[\]<>|#]|(?<!\w)_|_(?!\w))", r"\\\1", text)
