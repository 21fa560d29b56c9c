"""The navigation: mkdocs.yml names what a reader follows, and entries that end in /* stand for the pages of a folder."""

from __future__ import annotations

from typing import Any

from book import api, commands, directives, listings, notebooks, places

# pages that mkdocs.yml has a place for before they are written
COMING = (
    "recordings.md",
    "microscope.md",
    "pretrained.md",
    "browser.md",
    "export.md",
    "first_steps.md",
    "examples/README.md",
)


def results() -> list[dict[str, str]]:
    """The overview of what was measured first, then every other page by its title."""
    files = sorted((places.ROOT / "docs" / "results").glob("*.md"))
    titles = {file.name: directives.titled(file.read_text()) or file.stem for file in files}
    rest = sorted((title, name) for name, title in titles.items() if name != "README.md")
    return [{"Overview": "results/README.md"}, *({title: f"results/{name}"} for title, name in rest)]


def whole(nav: list[Any]) -> list[Any]:
    """The navigation of mkdocs.yml, filled; pages of docs/ that it does not name come last, under "More"."""
    found = filled(nav)
    titles = {name: directives.titled(text) or name for name, text in texts().items()}
    more = [{title: name} for name, title in titles.items() if name not in named(found)]
    return [*found, {"More": more}] if more else found


def texts() -> dict[str, str]:
    """uri -> Markdown of the pages at the top of docs/, notebooks and folders of programs too."""
    files = sorted((places.ROOT / "docs").glob("*.md"))
    return {file.name: file.read_text() for file in files} | notebooks.pages() | listings.pages()


def filled(nav: list[Any]) -> list[Any]:
    """The navigation with folders as their pages, and without pages that are still to come."""
    folders: dict[str, list[Any]] = {
        "results/*": results(),
        "commands/*": ["commands/index.md", *(f"commands/{app}.md" for app in commands.APPS)],
        "apps/*": [f"apps/{app}.md" for app in commands.APPS],
        "packages/*": [f"packages/{package}.md" for package in api.PACKAGES],
        "api/*": [f"api/{package}.md" for package in api.PACKAGES],
    }
    out: list[Any] = []
    for entry in nav:
        if isinstance(entry, str):
            out += folders.get(entry, [entry])
            continue
        ((title, value),) = entry.items()
        if isinstance(value, list):
            out += [{title: inside}] if (inside := filled(value)) else []
        elif value not in COMING or value in texts():
            out.append(entry)
    return out


def named(nav: list[Any]) -> list[str]:
    """Every page that a navigation names, in its order."""
    out: list[str] = []
    for entry in nav:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        out += named(value) if isinstance(value, list) else [value]
    return out
