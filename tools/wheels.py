"""What an index would read of our wheels: each states what its pyproject.toml declares, and holds what its folder holds.

wheels.py check FOLDER    every member's wheel and sdist lie there, and no wheel says or holds anything else
"""

from __future__ import annotations

import argparse
import configparser
import pathlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

from packaging.markers import Marker
from packaging.metadata import Metadata, parse_email
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from release import ROOT, members, project


def module(folder: pathlib.Path) -> str:
    return folder.name.replace("-", "_")


def words(need: Requirement) -> str:
    """A requirement in one spelling: uv writes a declared python_version < "3.13" as python_full_version < "3.13"."""
    marker = f" ; {need.marker}" if need.marker else ""
    text = f"{canonicalize_name(need.name)}{_extras(need)}{need.specifier}{need.url and f' @ {need.url}' or ''}{marker}"
    return text.replace("python_full_version", "python_version")


def _extras(need: Requirement) -> str:
    return f"[{','.join(sorted(need.extras))}]" if need.extras else ""


def declared(table: Mapping[str, Any]) -> set[str]:
    """What a pyproject.toml asks for, in the words of a wheel: what an extra needs is marked with it."""
    needs = {words(Requirement(need)) for need in table.get("dependencies", [])}
    for extra, of_extra in table.get("optional-dependencies", {}).items():
        for need in map(Requirement, of_extra):
            own = f"({need.marker}) and " if need.marker else ""
            need.marker = Marker(f"{own}extra == '{extra}'")
            needs.add(words(need))
    return needs


def shipped(folder: pathlib.Path) -> dict[str, bytes]:
    """The files of a member that its wheel has to hold, by their names in it: what git keeps, or would."""
    at = folder / "src"
    asked = ["git", "ls-files", "-coz", "--exclude-standard", "--", "src"]
    listed = subprocess.run(asked, cwd=folder, check=True, capture_output=True, text=True).stdout
    files = (folder / name for name in sorted(filter(None, listed.split("\0"))))
    return {str(file.relative_to(at)): file.read_bytes() for file in files if file.is_file()}


def opened(wheel: pathlib.Path) -> tuple[Metadata, dict[str, bytes]]:
    """A wheel's metadata, every field in the form of its standard (else ExceptionGroup), and its files."""
    with zipfile.ZipFile(wheel) as packed:
        held = {name: packed.read(name) for name in packed.namelist() if not name.endswith("/")}
    return Metadata.from_raw(parse_email(held[f"{info(wheel)}/METADATA"])[0]), held


def info(wheel: pathlib.Path) -> str:
    return f"{wheel.name.removesuffix('-py3-none-any.whl')}.dist-info"


def commands(held: Mapping[str, bytes], wheel: pathlib.Path) -> dict[str, str]:
    scripts = configparser.ConfigParser()
    scripts.read_string(held.get(f"{info(wheel)}/entry_points.txt", b"").decode())
    return dict(scripts["console_scripts"]) if scripts.has_section("console_scripts") else {}


def faults(wheel: pathlib.Path, folder: pathlib.Path, licence: bytes) -> Iterator[str]:
    """What is wrong with one wheel, a sentence each."""
    table = project(folder)
    metadata, held = opened(wheel)
    pairs = {
        "name": (metadata.name, table["name"]),
        "version": (str(metadata.version), table["version"]),
        "summary": (metadata.summary, table["description"]),
        "Python": (metadata.requires_python, SpecifierSet(table["requires-python"])),
        "licence": (metadata.license_expression, table["license"]),
        "classifiers": (metadata.classifiers or [], table.get("classifiers", [])),
        "extras": (
            sorted(metadata.provides_extra or []),
            sorted(map(canonicalize_name, table.get("optional-dependencies", {}))),
        ),
        "commands": (commands(held, wheel), table.get("scripts", {})),
    }
    for what, (there, here) in pairs.items():
        if there != here:
            yield f"its {what}: {there} in the wheel, {here} in pyproject.toml"
    needs = {words(need) for need in metadata.requires_dist or []}
    for need in sorted(needs ^ declared(table)):
        yield f"it asks for {need}, which is not declared" if need in needs else f"it does not ask for {need}"
    for asked in metadata.requires_dist or []:
        if asked.url:
            yield f"it asks for {asked}: an index takes no address"
    if (
        metadata.description_content_type != "text/markdown"
        or metadata.description != (folder / "README.md").read_text()
    ):
        yield "its description is not the README in Markdown"
    if [str(file) for file in metadata.license_files or []] != ["LICENSE"]:
        yield "it names no licence file"
    elif held.get(f"{info(wheel)}/licenses/LICENSE") != licence:
        yield "its licence text is not the repository's"
    if f"{module(folder)}/py.typed" not in held:
        yield "py.typed is missing: a type checker would not look at it"
    inside = {name: data for name, data in held.items() if not name.startswith(f"{info(wheel)}/")}
    outside = shipped(folder)
    for name in sorted(inside.keys() | outside.keys()):
        if name not in inside:
            yield f"{name} is missing"
        elif name not in outside:
            yield f"{name} is no file of src"
        elif inside[name] != outside[name]:
            yield f"{name} is not what src has"


def shut_out(wheels: Mapping[str, pathlib.Path]) -> Iterator[str]:
    """Ranges by which one wheel refuses another that lies beside it; uv minds none of them inside the workspace."""
    metadata = {name: opened(wheel)[0] for name, wheel in wheels.items()}
    for name, asking in metadata.items():
        for need in asking.requires_dist or []:
            if need.name not in metadata:
                continue
            if metadata[need.name].version not in need.specifier:
                yield f"{name} asks for {need}, and the wheel of {need.name} is {metadata[need.name].version}"
            if sorted(one.operator for one in need.specifier) != ["<", ">="]:
                yield f"{name} asks for {need}: a range between members is >=A,<B"


def check(folder: pathlib.Path) -> list[str]:
    """Every sentence there is to say of the wheels and sdists of a folder."""
    licence, found, wheels = (ROOT / "LICENSE").read_bytes(), list[str](), dict[str, pathlib.Path]()
    expected = set()
    for name, home in members().items():
        stem = f"{name.replace('-', '_')}-{project(home)['version']}"
        wheel, sdist = folder / f"{stem}-py3-none-any.whl", folder / f"{stem}.tar.gz"
        expected |= {wheel, sdist}
        found += [f"{name}: {file.name} was not built" for file in (wheel, sdist) if not file.exists()]
        if wheel.exists():
            wheels[name] = wheel
            found += [f"{name}: {sentence}" for sentence in faults(wheel, home, licence)]
    built = {*folder.glob("*.whl"), *folder.glob("*.tar.gz")}
    found += [f"{file.name}: of no member, or of another version" for file in sorted(built - expected)]
    return [*found, *shut_out(wheels)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["check"])
    parser.add_argument("folder", type=pathlib.Path)
    args = parser.parse_args()
    if found := check(args.folder):
        sys.exit("\n".join(found))
    print(f"{len(members())} wheels say and hold what their folders do")


if __name__ == "__main__":
    main()
