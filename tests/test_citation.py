"""CITATION.cff says who made this and whose methods they are, in the form of its standard (1.2.0)."""

from __future__ import annotations

import pathlib

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[1]
# of the standard's schema, what a file must have, and the words it has for what we use; cffconvert --validate knows all of it
NEEDED = {"cff-version", "message", "title", "authors"}
TYPES = {"article", "conference-paper", "unpublished"}


def test_it_has_what_the_standard_asks_for() -> None:
    told = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert told.keys() >= NEEDED and told["cff-version"] == "1.2.0" and told["license"] == "MIT"
    for one in [told, *told["references"]]:
        assert one["title"] and one["authors"]
        assert all(
            {"name"} == author.keys() or {"family-names", "given-names"} == author.keys() for author in one["authors"]
        )
    assert {one["type"] for one in told["references"]} <= TYPES


def test_every_app_is_of_a_paper_that_is_cited() -> None:
    told = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    notes = " ".join(one["notes"] for one in told["references"])
    for app in ROOT.glob("apps/*/pyproject.toml"):
        assert f"apps/{app.parent.name}" in notes
