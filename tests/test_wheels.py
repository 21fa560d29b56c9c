"""tools/wheels.py: our wheels are in order, and it notices where one is not."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import wheels

NAME = "wm_var-0.1.0"
INFO = f"{NAME}.dist-info"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [os.environ.get("UV") or "uv", "build", "-q", "--all-packages", "--out-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)
    return folder


def test_every_wheel_says_and_holds_what_its_folder_does(built: pathlib.Path) -> None:
    assert wheels.check(built) == []


def edited(file: str, pattern: bytes, new: bytes) -> Callable[[dict[str, bytes]], None]:
    def edit(held: dict[str, bytes]) -> None:
        held[file], count = re.subn(pattern, new, held[file], count=1, flags=re.MULTILINE)
        assert count, f"{file} has no {pattern!r}"

    return edit


def without(file: str) -> Callable[[dict[str, bytes]], None]:
    def edit(held: dict[str, bytes]) -> None:
        del held[file]

    return edit


def beside(file: str) -> Callable[[dict[str, bytes]], None]:
    def edit(held: dict[str, bytes]) -> None:
        held[file] = b"pass\n"

    return edit


METADATA = f"{INFO}/METADATA"
PLANTED = {
    "its name: wm-bar": edited(METADATA, rb"^Name: wm-var$", b"Name: wm-bar"),
    "its version: 0.2.0": edited(METADATA, rb"^Version: .*$", b"Version: 0.2.0"),
    "its Python: >=3.8": edited(METADATA, rb"^Requires-Python: .*$", b"Requires-Python: >=3.8"),
    "its licence: None": edited(METADATA, rb"^License-Expression: .*\n", b""),
    "it asks for torch==2.15, which is not declared": edited(METADATA, rb"^(Requires-Dist: torch).*$", rb"\1==2.15"),
    "it does not ask for torch>=2.11": edited(METADATA, rb"^Requires-Dist: torch.*\n", b""),
    "an index takes no address": edited(METADATA, rb"^(Requires-Dist: torch).*$", rb"\1 @ https://example.org/t.whl"),
    "is not the README": edited(METADATA, rb"^# wm-var$", b"# another"),
    "names no licence file": edited(METADATA, rb"^License-File: .*\n", b""),
    "its licence text": edited(f"{INFO}/licenses/LICENSE", rb"MIT", b"TIM"),
    "its commands: {'var': 'wm_var:main'}": lambda held: held.update(
        {f"{INFO}/entry_points.txt": b"[console_scripts]\nvar = wm_var:main\n"}
    ),
    "py.typed is missing": without("wm_var/py.typed"),
    "wm_var/__init__.py is missing": without("wm_var/__init__.py"),
    "wm_var/old.py is no file of src": beside("wm_var/old.py"),
    "tests/test_x.py is no file of src": beside("tests/test_x.py"),
    "wm_var/__init__.py is not what src has": edited("wm_var/__init__.py", rb"\A", b"# later\n"),
}


@pytest.mark.parametrize("told", PLANTED)
def test_a_wheel_that_is_not_in_order_is_told(built: pathlib.Path, tmp_path: pathlib.Path, told: str) -> None:
    wheel = tmp_path / f"{NAME}-py3-none-any.whl"
    _, held = wheels.opened(built / wheel.name)
    PLANTED[told](held)
    with zipfile.ZipFile(wheel, "w") as packed:
        for name, data in held.items():
            packed.writestr(name, data)
    found = [*wheels.faults(wheel, ROOT / "packages" / "wm-var", (ROOT / "LICENSE").read_bytes())]
    assert any(told in sentence for sentence in found), found


@pytest.mark.parametrize(
    ("need", "told"),
    [
        ("wm-core>=0.1,<0.2", None),
        ("wm-core>=0.2,<0.3", "and the wheel of wm-core is 0.1.0"),
        ("wm-core", "a range between members is >=A,<B"),
        ("wm-core==0.1.0", "a range between members is >=A,<B"),
    ],
)
def test_a_range_that_shuts_a_wheel_out_is_told(
    built: pathlib.Path, tmp_path: pathlib.Path, need: str, told: str | None
) -> None:
    found = {name: next(built.glob(f"{name.replace('-', '_')}-*.whl")) for name in ("wm-core", "wm-var")}
    wheel = tmp_path / found["wm-var"].name
    _, held = wheels.opened(found["wm-var"])
    edited(METADATA, rb"^Requires-Dist: .*$", f"Requires-Dist: {need}".encode())(held)
    with zipfile.ZipFile(wheel, "w") as packed:
        for name, data in held.items():
            packed.writestr(name, data)
    said = [*wheels.shut_out(found | {"wm-var": wheel})]
    assert said == [] if told is None else any(told in sentence for sentence in said)


def test_a_wheel_that_was_not_built_and_one_of_no_member_are_told(built: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for file in built.glob("*"):
        if "wm_var" not in file.name and file.is_file():
            os.link(file, tmp_path / file.name)
    (tmp_path / "stranger-1.0-py3-none-any.whl").touch()
    found = wheels.check(tmp_path)
    assert found == [
        f"wm-var: {NAME}-py3-none-any.whl was not built",
        f"wm-var: {NAME}.tar.gz was not built",
        "stranger-1.0-py3-none-any.whl: of no member, or of another version",
    ]
