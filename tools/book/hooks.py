"""mkdocs' hooks: pages that are made, the navigation they join, and what becomes of every page's Markdown."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from book import api, commands, directives, listings, navigation, notebooks, places, source

ORIGINS: dict[str, str] = {}  # uri of a page -> the file of the repository that it shows
FORMULAS: dict[str, list[str]] = {}


def made() -> dict[str, str]:
    """uri -> Markdown of every page that no file of docs/ is."""
    found = {}
    for member in places.members():
        path = f"{member}/README.md"
        ORIGINS[f"{member}.md"] = path
        found[f"{member}.md"] = (places.ROOT / path).read_text()
    for path in sorted(places.linked_sources()):
        language = {".py": "python", ".toml": "toml", ".cff": "yaml", "": "docker"}.get(
            pathlib.Path(path).suffix, "text"
        )
        text = (places.ROOT / path).read_text().rstrip()
        found[f"source/{path}.md"] = f"# {pathlib.Path(path).name}\n\n`{path}`\n\n````{language}\n{text}\n````\n"
    return found | commands.pages() | api.pages() | notebooks.pages() | listings.pages()


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    config.nav = navigation.whole(config.nav or [])
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for uri, text in made().items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    uri = page.file.src_uri
    path = ORIGINS.get(uri) or f"docs/{uri}"
    try:
        text = directives.included(places.relinked(markdown, path, uri), uri)
        text = directives.coded(text, uri)
    except source.Gone as error:
        raise PluginError(str(error)) from error
    text = directives.apart(text)
    if uri.startswith("methods/"):
        text, FORMULAS[uri] = directives.mathematics(text)
    return text


def on_page_content(html: str, page: Page, **_: Any) -> str:
    formulas = FORMULAS.get(page.file.src_uri)
    return directives.drawn(html, formulas) if formulas else html
