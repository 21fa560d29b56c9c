"""Environment markers by what they select: on every Python and platform that the project declares, and written one way.

Two markers are the same where they select the same; uv's own text for one selection changes with its version.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

from packaging.markers import Marker
from packaging.specifiers import SpecifierSet

Point = tuple[str, str, str, str]  # the value of each axis, in their order
Selection = frozenset[Point]

AXES = ("sys_platform", "platform_machine", "platform_python_implementation", "python_full_version")
OTHER = "other"  # stands for every machine that is not listed
MACHINES = ("aarch64", "arm64", "armv7l", "i686", "ppc64le", "riscv64", "s390x", "x86_64", OTHER)
NAMED = {"linux": ("posix", "Linux"), "darwin": ("posix", "Darwin"), "win32": ("nt", "Windows")}  # os, system
BLIND = ("platform_release", "platform_version", "extra", "dependency_groups")  # not on any axis
MINORS, PATCHES = range(40), range(31)


class Universe:
    """All points that a project declares: `requires-python` and uv's `environments`.

    >>> universe = Universe(">=3.11,<3.14", ["sys_platform == 'linux'", "sys_platform == 'darwin'"])
    >>> both = "python_full_version < '3.12' and (sys_platform == 'darwin' or sys_platform == 'linux')"
    >>> apart = "(python_version < '3.12' and sys_platform == 'linux') or (python_version < '3.12' and os_name == 'posix')"
    >>> universe.select(both) == universe.select(apart)
    True
    >>> universe.write(universe.select(both))
    "python_full_version < '3.12'"
    >>> universe.write(universe.select("sys_platform == 'linux' and platform_machine != 'x86_64'"))
    "sys_platform == 'linux' and platform_machine != 'x86_64'"
    >>> universe.write(universe.select(None))
    ''
    """

    def __init__(self, requires_python: str, environments: Sequence[str] = ()) -> None:
        admitted = SpecifierSet(requires_python)
        versions = [f"3.{minor}.{patch}" for minor in MINORS for patch in PATCHES]
        self.versions = [version for version in versions if version in admitted]
        points = [
            (system, machine, implementation, version)
            for system in NAMED
            for machine in MACHINES
            for implementation in ("CPython", "PyPy")
            for version in self.versions
        ]
        wanted = [Marker(one) for one in environments]
        self.points: Selection = frozenset(p for p in points if not wanted or any(_holds(m, p) for m in wanted))
        self.select = cache(self._select)

    def _select(self, marker: str | None) -> Selection:
        """The points at which a marker holds; all for none. ValueError for one that depends on something else."""
        if marker is None:
            return self.points
        if blind := [name for name in BLIND if name in marker]:
            raise ValueError(f"the marker {marker!r} depends on {blind[0]}, which no declared environment fixes")
        read = Marker(marker)
        return frozenset(point for point in self.points if _holds(read, point))

    def write(self, selection: Selection) -> str:
        """The one text of a selection: an empty one for all points."""
        return self._write(selection, self.points, 0) or ""

    def _write(self, selection: Selection, among: Selection, axis: int) -> str | None:
        """The text that tells `selection` apart from the rest of `among` by this axis and the later ones; None: nothing."""
        if not selection or selection == among:
            return "" if selection else None
        texts: dict[str | None, list[str]] = {}
        for value in sorted({point[axis] for point in among}, key=self._order):
            inside, all_of_it = ({p for p in points if p[axis] == value} for points in (selection, among))
            texts.setdefault(self._write(frozenset(inside), frozenset(all_of_it), axis + 1), []).append(value)
        if len(texts) == 1:
            return next(iter(texts))
        every = [value for values in texts.values() for value in values]
        parts = []
        for text, values in texts.items():
            if text is not None:
                here = self._versions(values) if AXES[axis] == "python_full_version" else _names(axis, values, every)
                parts.append(" and ".join(_bracketed(one) for one in (here, text) if one))
        return " or ".join(parts if len(parts) == 1 else [f"({one})" if " and " in one else one for one in parts])

    def _versions(self, values: list[str]) -> str:
        """Runs of Python versions as intervals, open where they meet an end of what is declared."""
        inside, runs, start = set(values), [], 0
        while start < len(self.versions):
            stop = start
            while stop < len(self.versions) and self.versions[stop] in inside:
                stop += 1
            if stop > start:
                low = [] if start == 0 else [f"python_full_version >= '{_short(self.versions[start])}'"]
                high = [] if stop == len(self.versions) else [f"python_full_version < '{_short(self.versions[stop])}'"]
                runs.append(" and ".join(low + high))
            start = max(stop, start + 1)
        return " or ".join(run if len(runs) == 1 or " and " not in run else f"({run})" for run in runs)

    def _order(self, value: str) -> tuple[int, str]:
        return (self.versions.index(value) if value in self.versions else 0, value)


def _holds(marker: Marker, point: Point) -> bool:
    system, machine, implementation, version = point
    os_name, platform_system = NAMED[system]
    return marker.evaluate(
        {
            "sys_platform": system,
            "os_name": os_name,
            "platform_system": platform_system,
            "platform_machine": machine,
            "platform_python_implementation": implementation,
            "implementation_name": implementation.lower(),
            "implementation_version": version,
            "python_full_version": version,
            "python_version": version.rpartition(".")[0],
        }
    )


def _names(axis: int, values: list[str], every: Iterable[str]) -> str:
    """`is one of these`, or `is none of those` where the unlisted machines are among them."""
    if OTHER in values:
        return " and ".join(f"{AXES[axis]} != '{value}'" for value in sorted(set(every) - set(values)))
    return " or ".join(f"{AXES[axis]} == '{value}'" for value in values)


def _short(version: str) -> str:
    return version.removesuffix(".0")


def _bracketed(text: str) -> str:
    return f"({text})" if " or " in text else text
