"""What the presets of today have otherwise than those of an earlier commit, number by number.

presets.py diff COMMIT [--app dreamer]     a markdown table; exit code 0 whether or not there is a difference
presets.py show                            every preset of this checkout, resolved, as JSON

A field that a commit did not have yet stands with what its code did (`wm_run.config.now`), so that a new field which
changes nothing is no difference. Needs git and the commit; nothing of the checkout is touched.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
Presets = Mapping[str, Mapping[str, Mapping[str, Any]]]  # app -> preset -> field -> value
# run in the commit's own sources: that of today may not fit them
SHOW = """
import dataclasses, importlib, json, sys
from wm_run.configs import resolve
found = {}
for name in sys.argv[1:]:
    app = importlib.import_module(f"{name}.cli").APP
    found[name] = {one: dataclasses.asdict(resolve(app, one)) for one in app.files("presets")}
print(json.dumps(found))
"""


class Difference(NamedTuple):
    """One number of one preset; a side without the preset has no fields at all."""

    app: str
    preset: str
    field: str
    before: Any
    after: Any


def names() -> list[str]:
    """The apps of this checkout, as modules."""
    return sorted(path.parent.name.replace("-", "_") for path in ROOT.glob("apps/*/pyproject.toml"))


def shown(root: pathlib.Path, apps: Sequence[str]) -> Presets:
    """The presets of a checkout, or of an unpacked commit."""
    sources = [str(path) for folder in ("apps", "packages") for path in sorted(root.glob(f"{folder}/*/src"))]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sources), "PYTHONDONTWRITEBYTECODE": "1"}
    printed = subprocess.run([sys.executable, "-c", SHOW, *apps], env=env, check=True, capture_output=True, text=True)
    found: Presets = json.loads(printed.stdout)
    return found


def at(commit: str, apps: Sequence[str]) -> Presets:
    """The presets of a commit, of those of the apps that it has."""
    packed = subprocess.run(["git", "archive", commit, "apps", "packages"], cwd=ROOT, capture_output=True, check=False)
    if packed.returncode:
        raise SystemExit(f"presets.py: git knows no commit {commit!r} here: {packed.stderr.decode().strip()}")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as tree:
            tree.extractall(folder, filter="data")
        root = pathlib.Path(folder)
        return shown(root, [name for name in apps if (root / "apps" / name / "src").is_dir()])


def meanings(app: str) -> dict[str, Any]:
    """What the code did before there was a field, of those that say so."""
    config = importlib.import_module(f"{app}.cli").APP.config
    return {one.name: one.metadata["was"] for one in dataclasses.fields(config) if "was" in one.metadata}


def differences(before: Presets, after: Presets, meant: Mapping[str, Mapping[str, Any]]) -> Iterator[Difference]:
    """Every number that is another; of a preset that is new or gone, one line without a field.

    >>> old, new = {"a": {"tiny": {"lr": 1}}}, {"a": {"tiny": {"lr": 1, "scale": 2, "rows": 3}, "big": {"lr": 1}}}
    >>> [one[1:] for one in differences(old, new, {"a": {"scale": 2, "rows": 4}})]
    [('big', '', None, 'new'), ('tiny', 'rows', 4, 3)]
    """
    for app in sorted(before.keys() | after.keys()):
        old, new = before.get(app, {}), after.get(app, {})
        for preset in sorted(old.keys() | new.keys()):
            if preset not in old or preset not in new:
                yield Difference(app, preset, "", "there" if preset in old else None, "new" if preset in new else None)
                continue
            was, now, means = old[preset], new[preset], meant.get(app, {})
            for field in sorted(was.keys() | now.keys()):
                one, other = was.get(field, means.get(field)), now.get(field)
                if one != other:
                    yield Difference(app, preset, field, one, other)


def table(found: Sequence[Difference], commit: str, every: Mapping[str, int]) -> str:
    """Markdown; presets of an app in which the same number changed alike share a row. every: how many each app had."""
    if not found:
        return f"No preset has another number than at {commit}."
    rows: dict[tuple[str, str, str, str], list[str]] = {}
    for one in found:
        key = (one.app, f"`{one.field}`" if one.field else "the preset", _word(one.before), _word(one.after))
        rows.setdefault(key, []).append(one.preset)
    lines = [f"| app | presets | number | {commit} | now |", "|---|---|---|---|---|"]
    for (app, field, before, after), presets in rows.items():
        which = "all" if len(presets) == every[app] else ", ".join(presets)
        lines.append(f"| {app} | {which} | {field} | {before} | {after} |")
    return "\n".join(lines)


def _word(value: Any) -> str:
    return "none" if value is None else f"{value:,}" if isinstance(value, int) and value > 9999 else str(value)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("show")
    diff = commands.add_parser("diff")
    diff.add_argument("commit")
    diff.add_argument("--app", choices=names(), action="append")
    given = parser.parse_args(argv)
    apps = getattr(given, "app", None) or names()
    if given.command == "show":
        print(json.dumps(shown(ROOT, apps), indent=1))
        return
    meant = {app: meanings(app) for app in apps}
    before, after = at(given.commit, apps), shown(ROOT, apps)
    both = {app: len(before.get(app, {}).keys() & presets.keys()) for app, presets in after.items()}
    print(table([*differences(before, after, meant)], given.commit, both))


if __name__ == "__main__":
    main()
