"""The site as it was built: nothing is loaded from elsewhere, every link and anchor of its own is there, pictures are told.

check.py FOLDER    says each fault in a sentence
"""

from __future__ import annotations

import argparse
import pathlib
import posixpath
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

# attributes by which a page loads something; the href of an <a> is where a reader may go
LOADING = {"src", "srcset", "poster", "data", "action", "background", "xlink:href"}
LINKED = {"link": "href", "use": "href", "image": "href", "base": "href"}
STYLE = re.compile(r"""url\(\s*['"]?([^'")]+)|@import\s+['"]([^'"]+)""")
ELSEWHERE = re.compile(r"^(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)


@dataclass
class Page(HTMLParser):
    """What one page loads, where it leads, and what can be led to."""

    loads: list[str] = field(default_factory=list)
    leads: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    untold: list[str] = field(default_factory=list)  # pictures without alternative text
    headings: int = 0
    inside: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.inside = tag if tag in ("style", "script") else ""
        self.ids |= {found[name] for name in ("id", "name") if name in found}
        self.loads += [found[name] for name in found if name in LOADING]
        self.loads += _styles(found.get("style", ""))
        if tag in LINKED and LINKED[tag] in found:
            self.loads.append(found[LINKED[tag]])
        if tag == "a" and "href" in found:
            self.leads.append(found["href"])
        if tag == "img" and not found.get("alt", "").strip():
            self.untold.append(found.get("src", "?"))
        self.headings += tag == "h1"

    def handle_data(self, data: str) -> None:
        if self.inside == "style":
            self.loads += _styles(data)


def _styles(text: str) -> list[str]:
    return [one or other for one, other in STYLE.findall(text)]


def read(file: pathlib.Path) -> Page:
    page = Page()
    page.feed(file.read_text())
    return page


def faults(site: pathlib.Path) -> Iterator[str]:
    """Of a built site, a sentence each."""
    pages = {file.relative_to(site).as_posix(): read(file) for file in sorted(site.rglob("*.html"))}
    if not pages:
        yield f"{site} holds no page"
    for name, page in pages.items():
        if page.headings != 1:
            yield f"{name} has {page.headings} titles"
        yield from (f"{name} loads {one} from elsewhere" for one in page.loads if ELSEWHERE.match(one))
        yield from (f"{name} shows {one} without a word for who cannot see it" for one in page.untold)
        if name == "404.html":  # is shown in the place of any page, so that it cannot say where it lies
            continue
        own = [one for one in page.loads if one and not ELSEWHERE.match(one) and not one.startswith("data:")]
        for target in [*own, *page.leads]:
            if reason := missing(site, pages, name, target):
                yield f"{name} leads to {target}: {reason}"
    for file in sorted(site.rglob("*.css")):
        for one in _styles(file.read_text()):
            if ELSEWHERE.match(one):
                yield f"{file.relative_to(site)} loads {one} from elsewhere"


def missing(site: pathlib.Path, pages: dict[str, Page], name: str, target: str) -> str:
    """What is not there of where a page leads; empty where all is, or where it leads out of the site."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        return ""
    at = name
    if parts.path:
        at = posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(parts.path)))
        if parts.path.startswith("/"):
            return "an address from the root of a server, where the site need not be"
        if (site / at).is_dir():
            at = posixpath.normpath(posixpath.join(at, "index.html"))
        if not (site / at).is_file():
            return "no such file"
    anchor = unquote(parts.fragment)
    if anchor and at in pages and anchor not in pages[at].ids and not anchor.startswith("__"):
        return "no such place on that page"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=pathlib.Path)
    site = parser.parse_args().site
    if found := sorted(set(faults(site))):
        sys.exit("\n".join(found))
    print(f"{len([*site.rglob('*.html')])} pages load nothing from elsewhere, and all of their links lead somewhere")


if __name__ == "__main__":
    main()
