"""Files of the repository -> pages of the site, and links between the ones -> links between the others."""

from __future__ import annotations

import os
import pathlib
import posixpath
import re
from collections.abc import Callable, Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^\s*(```+|~~~+)")
LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\]\()([^)\s]+)(\))")
CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
SHOWN = (".py", ".toml", ".json", ".cff", "Dockerfile")  # sources that have a page where something links to them


def members() -> list[str]:
    """Folders of packages and apps, as "packages/wm-core"."""
    files = [*ROOT.glob("packages/*/pyproject.toml"), *ROOT.glob("apps/*/pyproject.toml")]
    return sorted(str(file.parent.relative_to(ROOT)) for file in files)


def page(path: str) -> str | None:
    """The page (or file) of the site that a path in the repository is, or None where it is none.

    >>> page("README.md"), page("packages/wm-core"), page("docs/results/README.md"), page("docs/results/doors.jsonl")
    ('index.md', 'packages/wm-core.md', 'results/README.md', 'results/doors.jsonl')
    >>> page("packages/wm-ssm/src/wm_ssm/plain.py"), page("nowhere.py")
    ('source/packages/wm-ssm/src/wm_ssm/plain.py.md', None)
    """
    path = path.removesuffix("/")
    if path in ("", ".", "README.md"):
        return "index.md"
    if (home := path.removesuffix("/README.md")) in members():
        return f"{home}.md"
    if not (ROOT / path).exists():
        return None
    if path.startswith("docs/"):
        path = path.replace(".ipynb", ".md")  # see book.notebooks
        return path.removeprefix("docs/") + ("/README.md" if (ROOT / path).is_dir() else "")
    return f"source/{path}.md" if path.endswith(SHOWN) else None


def outside_code(text: str, change: Callable[[str], str]) -> str:
    r"""The text with every line outside fences changed, of a line what is no code.

    >>> print(outside_code("a `a` a\n```\na\n```\na", str.upper))
    A `a` A
    ```
    a
    ```
    A
    """
    return "\n".join(line if fenced else _spans(line, change) for line, fenced in lines(text))


def lines(text: str) -> Iterator[tuple[str, bool]]:
    """Every line, and whether it belongs to a fenced block."""
    mark = ""
    for line in text.split("\n"):
        found = FENCE.match(line)
        if mark:
            yield line, True
            if found and line.strip() == mark:
                mark = ""
        else:
            mark = found[1] if found else ""
            yield line, bool(mark)


def _spans(line: str, change: Callable[[str], str]) -> str:
    out, at = [], 0
    for code in CODE.finditer(line):
        out += [change(line[at : code.start()]), code[0]]
        at = code.end()
    return "".join([*out, change(line[at:])])


def relinked(text: str, path: str, uri: str) -> str:
    """Markdown of the file `path`, with its links as they have to be on the page `uri`.

    A link to what has no page is a mistake that the strict build tells: it stays as it was.

    >>> relinked("[a](../../packages/env-adapters#tasks) [b](#x)", "apps/r2i/README.md", "apps/r2i.md")
    '[a](../packages/env-adapters.md#tasks) [b](#x)'
    """

    def one(found: re.Match[str]) -> str:
        target, _, anchor = found[2].partition("#")
        if not target or "://" in target or target.startswith("mailto:"):
            return found[0]
        there = page(posixpath.normpath(posixpath.join(posixpath.dirname(path), target)))
        if there is None:
            return found[0]
        return f"{found[1]}{os.path.relpath(there, posixpath.dirname(uri) or '.')}{'#' if anchor else ''}{anchor}{found[3]}"

    # links may span lines and hold code, so the whole text between fences is looked at
    out, block = [], list[str]()
    for line, fenced in [*lines(text), ("", True)]:
        if fenced:
            out += [LINK.sub(one, "\n".join(block))] if block else []
            block = []
            out.append(line)
        else:
            block.append(line)
    return "\n".join(out[:-1])


def linked_sources() -> set[str]:
    """Sources that a page links to, which therefore have a page of their own."""
    found = set()
    readmes = [ROOT / member / "README.md" for member in members()]
    for file in [ROOT / "README.md", *readmes, *ROOT.glob("docs/**/*.md")]:
        for match in LINK.finditer(file.read_text()):
            target = match[2].partition("#")[0]
            if target and "://" not in target and target.endswith(SHOWN):
                there = (file.parent / target).resolve()
                if there.is_file() and there.is_relative_to(ROOT) and not there.is_relative_to(ROOT / "docs"):
                    found.add(str(there.relative_to(ROOT)))
    return found
