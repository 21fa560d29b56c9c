"""Docstrings as mkdocstrings is to read them: doctests, which stand anywhere in ours, become blocks of code."""

from __future__ import annotations

from typing import Any

import griffe


def fenced(text: str) -> str:
    """A docstring with each doctest, up to the blank line that ends it, as a fenced block."""
    out, inside = list[str](), False
    for line in [*text.split("\n"), ""]:
        indent = line[: len(line) - len(line.lstrip())]
        if not inside and line.lstrip().startswith(">>>"):
            out, inside, margin = [*out, f"{indent}```pycon"], True, indent
        elif inside and not line.strip():
            out, inside = [*out, f"{margin}```"], False
        out.append(line)
    return "\n".join(out[:-1] if not out[-1] else out)


class Examples(griffe.Extension):
    """mkdocs.yml names it among the extensions of mkdocstrings."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)
