"""Notebooks of docs/ -> pages: what they say as it is, what they run as code, and what that told where it was kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from book import places


def page(notebook: Mapping[str, Any]) -> str:
    """Markdown of a notebook.

    >>> cells = [{"cell_type": "markdown", "source": ["# A"]}, {"cell_type": "code", "source": ["1 + 1"], "outputs": []}]
    >>> page({"cells": cells}).splitlines()
    ['# A', '', '```python', '1 + 1', '```']
    """
    out = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"]).strip("\n")
        if cell["cell_type"] == "code":
            text = f"```python\n{text}\n```"
        out += [text, *(f"```text\n{printed}\n```" for printed in map(_text, cell.get("outputs", [])) if printed)]
    return "\n\n".join(out) + "\n"


def _text(output: Mapping[str, Any]) -> str:
    """The plain text of an output, if it has any."""
    kept = output.get("text") or output.get("data", {}).get("text/plain") or ""
    return "".join(kept).strip("\n")


def pages() -> dict[str, str]:
    """uri -> Markdown of every notebook."""
    files = sorted((places.ROOT / "docs").glob("*.ipynb"))
    return {f"{file.stem}.md": page(json.loads(file.read_text())) for file in files}
