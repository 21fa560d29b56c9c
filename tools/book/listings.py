"""Folders of docs/ that hold programs -> a page each, which shows them."""

from __future__ import annotations

import ast

from book import places


def pages() -> dict[str, str]:
    """uri -> Markdown of every folder of docs/ with Python files and no page of its own."""
    found = {}
    for folder in sorted({file.parent for file in (places.ROOT / "docs").glob("*/*.py")}):
        if (folder / "README.md").exists() or (folder / "index.md").exists():
            continue
        out = [f"# {folder.name.capitalize()}"]
        for file in sorted(folder.glob("*.py")):
            text = file.read_text().rstrip()
            docstring = (ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0]
            out += [f"## {file.name}", docstring, f"````python\n{text}\n````"]
        found[f"{folder.name}/README.md"] = "\n\n".join(out) + "\n"
    return found
