"""Every workspace member is whole: a version, a README, a changelog, types, tests, and its place in the root's lists."""

from __future__ import annotations

import pathlib
import re
import tomllib
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDERS = sorted(file.parent for file in [*ROOT.glob("packages/*/pyproject.toml"), *ROOT.glob("apps/*/pyproject.toml")])
START = "<!-- towncrier release notes start -->"

member = pytest.mark.parametrize("folder", FOLDERS, ids=[folder.name for folder in FOLDERS])


def table(folder: pathlib.Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text())


def module(folder: pathlib.Path) -> str:
    return folder.name.replace("-", "_")


@member
def test_readme_begins_with_a_title_and_says_something(folder: pathlib.Path) -> None:
    lines = (folder / "README.md").read_text().splitlines()
    assert lines[0].startswith("# ") and any(line and not line.startswith("#") for line in lines[1:])


@member
def test_changelog_is_ready_for_towncrier(folder: pathlib.Path) -> None:
    assert START in (folder / "CHANGELOG.md").read_text().splitlines()


@member
def test_fragments_are_named_as_towncrier_reads_them(folder: pathlib.Path) -> None:
    kinds = {
        kind["directory"] for kind in tomllib.loads((ROOT / "towncrier.toml").read_text())["tool"]["towncrier"]["type"]
    }
    for file in (folder / "changes").glob("*"):
        if file.name != ".gitignore":
            assert re.fullmatch(rf"\+?[\w-]+\.({'|'.join(kinds)})(\.\d+)?\.md", file.name), file.name


@member
def test_version_licence_and_python_are_stated(folder: pathlib.Path) -> None:
    project = table(folder)["project"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert project["license"] == "MIT" and project["license-files"] == ["LICENSE"]
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert project["requires-python"] == table(ROOT)["project"]["requires-python"]
    assert project["description"] and project["readme"] == "README.md"


@member
def test_types_are_shipped(folder: pathlib.Path) -> None:
    assert (folder / "src" / module(folder) / "py.typed").is_file()


@member
def test_it_has_tests(folder: pathlib.Path) -> None:
    files = list((folder / "tests").glob("**/test_*.py"))
    assert any("def test_" in file.read_text() for file in files)


@member
def test_the_root_lists_it_everywhere(folder: pathlib.Path) -> None:
    root, name = table(ROOT), table(folder)["project"]["name"]
    listed = [re.match(r"[\w-]+", line) for line in root["project"]["dependencies"]]
    assert name in [m.group() for m in listed if m]
    assert root["tool"]["uv"]["sources"][name] == {"workspace": True}
    assert module(folder) in root["tool"]["importlinter"]["root_packages"]
    layers = root["tool"]["importlinter"]["contracts"][0]["layers"]
    assert module(folder) in re.split(r" *\| *", " | ".join(layers))


@member
def test_members_it_needs_have_a_range_and_a_workspace_source(folder: pathlib.Path) -> None:
    house = {table(other)["project"]["name"] for other in FOLDERS}
    meta = table(folder)
    sources = meta.get("tool", {}).get("uv", {}).get("sources", {})
    for need in meta["project"]["dependencies"]:
        name = re.match(r"[\w-]+", need)
        assert name
        if name.group() in house:
            assert re.search(r">=\d+\.\d+,<\d+\.\d+$", need), f"{need}: write >=A,<B"
            assert sources[name.group()] == {"workspace": True}


@member
def test_torch_is_asked_for_by_its_oldest_version_and_never_pinned(folder: pathlib.Path) -> None:
    for need in table(folder)["project"]["dependencies"]:
        if re.match(r"torch\b", need):
            assert need == "torch>=2.11"


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if folder.parent.name == "apps"], ids=lambda f: f.name)
def test_an_app_is_private_and_starts_in_three_ways(folder: pathlib.Path) -> None:
    project = table(folder)["project"]
    assert project["name"] == f"wm-app-{folder.name.replace('_', '-')}"
    assert "Private :: Do Not Upload" in project["classifiers"]
    assert project["scripts"] == {folder.name.replace("_", "-"): f"{folder.name}.cli:main"}
    assert (folder / "__main__.py").is_file() and (folder / "src" / folder.name / "__main__.py").is_file()
