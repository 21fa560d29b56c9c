"""Markers are compared and written by what they select: held against every declared environment, one by one."""

from __future__ import annotations

import random

import pytest
from markers import Universe

ATOMS = (
    "python_full_version < '3.12'",
    "python_full_version >= '3.11.7'",
    "python_version == '3.13'",
    "sys_platform == 'linux'",
    "platform_system != 'Linux'",
    "os_name == 'posix'",
    "platform_machine == 'x86_64'",
    "platform_machine != 'arm64'",
    "platform_python_implementation != 'PyPy'",
    "implementation_name == 'cpython'",
)


@pytest.fixture(scope="module")
def universe() -> Universe:
    return Universe(">=3.11,<3.14", ["sys_platform == 'linux'", "sys_platform == 'darwin'"])


def nested(draw: random.Random, depth: int) -> str:
    if depth == 0:
        return draw.choice(ATOMS)
    one, two = nested(draw, depth - 1), nested(draw, draw.randrange(depth))
    return f"({one}) {draw.choice(('and', 'or'))} ({two})"


@pytest.mark.parametrize("seed", range(6))
def test_what_is_written_selects_the_same_and_is_written_the_same(universe: Universe, seed: int) -> None:
    selected = universe.select(nested(random.Random(seed), 3))
    if not selected:
        return  # a marker that holds nowhere has no text: such a release is in no resolution
    text = universe.write(selected)
    again = universe.select(text or None)
    assert again == selected
    assert universe.write(again) == text


def test_selections_that_differ_in_one_environment_are_told_apart(universe: Universe) -> None:
    one, two = universe.select("python_full_version < '3.12'"), universe.select("python_full_version < '3.12.1'")
    assert one < two and universe.write(one) != universe.write(two)


def test_a_marker_that_no_declared_environment_fixes_is_refused(universe: Universe) -> None:
    with pytest.raises(ValueError, match="platform_release"):
        universe.select("platform_release >= '5'")


def test_only_the_declared_pythons_and_platforms_count(universe: Universe) -> None:
    assert universe.write(universe.select("sys_platform != 'win32' and python_version >= '3.9'")) == ""
    assert {point[0] for point in universe.points} == {"linux", "darwin"}
    assert min(universe.versions) == "3.11.0" and "3.14.0" not in universe.versions
