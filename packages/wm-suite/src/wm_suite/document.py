"""The parts of a page -> one HTML document that needs nothing else: no network, no other file."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from importlib.resources import files

from wm_suite.chart import COLOURS


def shipped(name: str) -> str:
    """The text of a style or a script of this package."""
    return (files("wm_suite") / name).read_text(encoding="utf-8")


STYLE, SCRIPT = shipped("page.css"), shipped("page.js")


def document(title: str, body: Iterable[str], *, style: str = "", script: str = "") -> str:
    """The whole page; style and script: what it needs beside those of every page."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{STYLE}{style}</style></head>'
        f"<body>{''.join(body)}<div id=tip hidden></div><script>{SCRIPT}{script}</script></body></html>\n"
    )


def swatch(colour: int) -> str:
    """A small square in the colour of a line."""
    return f'<i class="swatch" style="background:var(--c{colour % COLOURS})"></i>'


def legend(lines: Iterable[tuple[int, str, int]]) -> str:
    """Buttons that hide lines, from their colours, labels and numbers of seeds."""
    items = [
        f'<button data-toggle="{colour}">{swatch(colour)}{escape(label)} <small>(n={seeds})</small></button>'
        for colour, label, seeds in lines
    ]
    return f'<p class="legend">{"".join(items)}</p>'
