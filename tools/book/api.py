"""What every package names as public -> a page for each package, for mkdocstrings to fill from the docstrings."""

from __future__ import annotations

import ast

from book import source
from book.places import ROOT

PACKAGES = sorted(file.parent.name for file in ROOT.glob("packages/*/pyproject.toml"))


def public(package: str) -> dict[str, str]:
    """Public name -> the dotted name of its definition, as the imports of the package's `__init__` have it."""
    module = package.replace("-", "_")
    body = source.tree(source.home(module))
    homes = dict[str, str]()
    for node in ast.walk(body):
        if isinstance(node, ast.ImportFrom) and node.module:
            homes |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    listed = next(
        ast.literal_eval(node.value)
        for node in body.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
    )
    return {name: homes[name] for name in listed}


def page(package: str) -> str:
    """Markdown of one package's page."""
    module = package.replace("-", "_")
    docstring = ast.get_docstring(source.tree(source.home(module))) or ""
    out = [f"# {package}", "", docstring.partition("\n\n")[0], "", f"What `{module}` itself names is public."]
    out += [f"What the package is for, with examples: [its README](../packages/{package}.md).", ""]
    for home in public(package).values():
        out += [f"::: {home}", ""]
    return "\n".join(out)


def pages() -> dict[str, str]:
    """uri -> Markdown of every page of the API."""
    return {f"api/{package}.md": page(package) for package in PACKAGES}
