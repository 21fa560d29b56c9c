"""Numbers of a page, each with what it is and the rows behind it -> JSON that lies in the page and beside it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import metadata, resources
from typing import Any

from wm_suite.cells import Sample
from wm_suite.sources import Source

FORMAT = 1


def said(value: float) -> str:
    """A score as a table shows it.

    >>> [said(value) for value in (0.77333, -0.5, 12.345, 967.4, 15234.6, 0.00123, 0.0, float("nan"))]
    ['0.77', '-0.50', '12.3', '967', '15,235', '0.0012', '0.00', '?']
    """
    if not math.isfinite(value):
        return "?"
    size = abs(value)
    if 0 < size < 0.01:
        return f"{value:.2g}"
    return f"{value:.2f}" if size < 10 else f"{value:.1f}" if size < 100 else f"{value:,.0f}"


def spread(mean: float, error: float) -> str:
    """A mean and its error, to the digits of the mean.

    >>> spread(1326.2, 16.42), spread(0.5, 0.149), spread(263.9, 0.21), spread(1.0, float("nan"))
    ('1,326 ± 16', '0.50 ± 0.15', '264 ± 0.21', '1.00')
    """
    if not math.isfinite(error):
        return said(mean)
    digits = 2 if abs(mean) < 10 else 1 if abs(mean) < 100 else 0
    text = f"{error:,.{digits}f}"
    return f"{said(mean)} ± {text if error == 0 or float(text.replace(',', '')) else said(error)}"


class Passport:
    """What a page shows, collected while it is written: `number` gives the HTML of one and keeps what recomputes it."""

    def __init__(self) -> None:
        self.numbers: dict[str, dict[str, Any]] = {}

    def number(self, key: str, text: str, how: str, samples: Iterable[Sample], **values: Any) -> str:
        """HTML of a number that opens its passport.

        Args:
            key: its name on this page, the same whenever the page is made of these rows.
            text: as it is shown.
            how: what it is, in words.
            samples: the runs it is computed from.
            values: in full.
        """
        kept = escape(self.keep(key, text, how, samples, **values), quote=True)
        return f'<button class="n" data-n="{kept}" title="{escape(how, quote=True)}">{escape(text)}</button>'

    def keep(self, key: str, text: str, how: str, samples: Iterable[Sample], **values: Any) -> str:
        """Keep a number, or a chart's, that the page shows in a form of its own; the name that it has got."""
        while key in self.numbers:
            key += "'"  # arms, tasks and fields may be called anything
        self.numbers[key] = {"text": text, "how": how, "values": plain(values), "of": [one.name for one in samples]}
        return key


def passport(
    collected: Passport,
    plan: Mapping[str, Any],
    sources: Sequence[Source],
    paths: Sequence[str],
    samples: Sequence[Sample],
) -> dict[str, Any]:
    """All that recomputes a page. paths: of the sources, relative to the page."""
    return {
        "format": FORMAT,
        "plan": dict(plan),
        "sources": [
            {"path": path, "kind": one.kind, "parts": dict(one.parts)} for path, one in zip(paths, sources, strict=True)
        ],
        "samples": {one.name: {"source": one.source, "line": one.line, "row": plain(one.row)} for one in samples},
        "numbers": collected.numbers,
    }


def maker() -> dict[str, str]:
    """What computes and writes a page: versions, and a digest of this package's own sources."""
    found = hashlib.sha256()
    folder = resources.files("wm_suite")
    for name in sorted(one.name for one in folder.iterdir() if one.name.endswith((".py", ".css", ".js"))):
        found.update(name.encode() + b"\0" + (folder / name).read_bytes())
    versions = {name: metadata.version(name) for name in ("wm-suite", "numpy", "scipy")}
    return {**versions, "sources": found.hexdigest()[:12]}


def script(found: Mapping[str, Any]) -> str:
    """The passport as a part of a page, that no text in it can end."""
    text = json.dumps(found, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="passport">{text}</script>'


def plain(value: Any) -> Any:
    """As JSON keeps it: null for what is no finite number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value
