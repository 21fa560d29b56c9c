"""What may be in git: no registry's host, no path of somebody's machine, no generated lock."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
from urllib.parse import urlsplit

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
ADDRESS = re.compile(r"https?://[^\s\"'<>)\]]+")
# a home folder of Linux or macOS, or a folder that only this or that container has at its top
MACHINE = re.compile(rb"(?<![\w.}>)\]*-])/(?:(?:home|Users)/\w|(?:root|work|workspace)/)")


def tracked() -> list[str]:
    return subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split(
        "\0"
    )[:-1]


def registry_hosts() -> set[str]:
    """The hosts uv resolves from and downloads from, in uv's own words: they must not be written here either."""
    told = subprocess.run(
        [os.environ.get("UV") or "uv", "help", "lock"], check=True, capture_output=True, text=True
    ).stdout
    indexes = [line for line in told.splitlines() if "default" in line and "/simple" in line]
    lock = ROOT / "uv.lock"
    addresses = ADDRESS.findall("\n".join(indexes) + (lock.read_text() if lock.exists() else ""))
    return {host for address in addresses if (host := urlsplit(address).hostname)}


def offenders(files: dict[str, bytes], needles: list[bytes]) -> list[str]:
    return [name for name, content in files.items() if any(needle in content for needle in needles)]


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    return {name: (ROOT / name).read_bytes() for name in tracked() if (ROOT / name).is_file()}


def test_uv_names_its_registry() -> None:
    assert registry_hosts(), "without a host the next test would look for nothing"


def test_no_tracked_file_names_a_registry(contents: dict[str, bytes]) -> None:
    assert not offenders(contents, [host.encode() for host in registry_hosts()])


def test_a_planted_host_is_found() -> None:
    host = min(registry_hosts())
    assert offenders({"a": b"nothing", "b": f"see https://{host}/simple".encode()}, [host.encode()]) == ["b"]


def test_no_tracked_file_names_a_machine_path(contents: dict[str, bytes]) -> None:
    own = [str(path).encode() + b"/" for path in (ROOT, pathlib.Path.home()) if len(path.parts) > 1]
    assert not offenders(contents, own)
    text = {name: found.group() for name, content in contents.items() if (found := MACHINE.search(content))}
    assert not text


@pytest.mark.parametrize("planted", ["/ho" + "me/ada/x", "see /ro" + "ot/x", '"/wo' + 'rk/main"', "/Us" + "ers/ada"])
def test_a_planted_path_is_found(planted: str) -> None:
    assert MACHINE.search(planted.encode())


@pytest.mark.parametrize(
    "fine", ["runs/wo" + "rk/a", "the root/branch", "./ho" + "me/x", "${X}/wo" + "rk/", "https://a.example/root"]
)
def test_an_ordinary_path_is_not(fine: str) -> None:
    assert not MACHINE.search(fine.encode())


def test_uv_lock_is_not_tracked() -> None:
    assert "uv.lock" not in tracked()
    subprocess.run(["git", "check-ignore", "-q", "uv.lock"], cwd=ROOT, check=True)


def test_no_tracked_file_is_ignored() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-ci", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert listed == ""
