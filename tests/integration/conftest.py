"""An installation of StarCraft II whose binary is our server, for tests that play it by SMACv2's own code."""

import importlib.util
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import pytest

SERVER = pathlib.Path(__file__).parents[2] / "packages" / "env-adapters" / "tests" / "starcraft_server.py"


@dataclass(frozen=True)
class Installed:
    """Where SC2PATH points."""

    folder: pathlib.Path

    def games(self) -> list[int]:
        """Process ids of the games that run."""
        return sorted(pid for one in (self.folder / "pids").iterdir() if alive(pid := int(one.name)))

    def gone(self, pids: Collection[int]) -> bool:
        """Whether these games have ended, within seconds."""
        end = time.monotonic() + 20
        while set(pids) & set(self.games()) and time.monotonic() < end:
            time.sleep(0.05)
        return not set(pids) & set(self.games())

    def one_dies(self, moment: int) -> None:
        """A game is killed when it has made so many steps of 8 loops, the first of the next ones to come there."""
        (self.folder / "dies").write_text(str(8 * moment))


def alive(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def starcraft(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Mapping[str, int]], Installed]]:
    """(strengths) -> an installation, whose games are of these strengths."""
    if not os.environ.get("SMACV2_SOURCE"):
        pytest.skip("SMACV2_SOURCE names no checkout of SMACv2")
    spec = importlib.util.spec_from_file_location("starcraft_server", SERVER)
    assert spec is not None and spec.loader is not None
    server = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "starcraft_server", server)
    spec.loader.exec_module(server)
    installed = Installed(server.install(tmp_path / "StarCraftII"))
    monkeypatch.setenv("SC2PATH", str(installed.folder))

    def of(strengths: Mapping[str, int]) -> Installed:
        for name, value in strengths.items():
            monkeypatch.setenv(f"SC2_TEST_{name}", str(value))
        return installed

    yield of
    for pid in installed.games():  # of a test that failed
        os.kill(pid, signal.SIGKILL)
