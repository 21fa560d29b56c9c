"""`play` in a real window, on a screen that Xvfb makes, with keys pressed by xdotool and closed as a person closes it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ImageGrab
from wm_run.filmstrip import IMAGINED, OBSERVED

ROOT = Path(__file__).parents[2]
NEEDED = {"Xvfb": "xvfb", "xdotool": "xdotool", "openbox": "openbox"}  # programs, and Debian's packages of them
MISSING = [package for program, package in NEEDED.items() if shutil.which(program) is None]
T = TypeVar("T")
BAR = {"real": OBSERVED, "dream": IMAGINED}

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"a screen to try needs {' '.join(MISSING)} (apt-get install)")


class Screen:
    """An X server without a card, with a window manager: what is closed by Alt+F4 is asked to close."""

    def __init__(self) -> None:
        read, write = os.pipe()
        command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1024x768x24", "-nolisten", "tcp"]
        self.server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
        os.close(write)
        with os.fdopen(read) as told:  # a free number, once it is ready
            self.name = f":{told.readline().strip()}"
        self.env = os.environ | {"DISPLAY": self.name}
        self.manager = subprocess.Popen(["openbox"], env=self.env, stderr=subprocess.DEVNULL)

    def close(self) -> None:
        for process in (self.manager, self.server):
            process.terminate()
            process.wait(30)

    def press(self, *words: str) -> None:
        subprocess.run(["xdotool", *words], env=self.env, check=True, capture_output=True)

    def picture(self) -> NDArray[np.int_]:
        """(H, W, 3)"""
        return np.asarray(ImageGrab.grab(xdisplay=self.name).convert("RGB")).astype(int)

    def window(self, colour: tuple[int, int, int]) -> tuple[NDArray[np.int_], int] | None:
        """The screen under a bar of that colour as wide as the window, and where that begins; None without one."""
        page = self.picture()
        bar = np.abs(page - np.array(colour)).max(-1) < 4
        rows = np.flatnonzero(bar.sum(1) > 300)
        if not len(rows):
            return None
        columns = np.flatnonzero(bar[rows[0]])
        return page[rows[0] :, columns[0] : columns[-1] + 1], int(columns[0])

    def middle(self, colour: tuple[int, int, int]) -> float | None:
        """Where across the screen the window lies."""
        found = self.window(colour)
        return None if found is None else found[1] + found[0].shape[1] / 2

    def paddle(self, colour: tuple[int, int, int]) -> float | None:
        """Where the model sees the paddle, which is blue: 0 to 1 of the right picture's width. None where it shows none."""
        found = self.window(colour)
        if found is None:
            return None
        page = found[0][:, found[0].shape[1] // 2 :]
        blue = np.argwhere((page[..., 2] > 180) & (page[..., 0] < 110))
        return float(blue[:, 1].mean() / page.shape[1]) if len(blue) > 50 else None

    def places(self, colour: tuple[int, int, int], key: str) -> list[float]:
        """Those of some pictures while a key is held, each another than the one before: a busy machine shows few in a second."""
        seen: list[float | None] = []
        before, end = self.picture(), time.monotonic() + 120
        self.press("keydown", key)
        try:
            while len(seen) < 65 and time.monotonic() < end:
                time.sleep(0.05)
                if not np.array_equal(now := self.picture(), before):
                    before = now
                    seen.append(self.paddle(colour))
        finally:
            self.press("keyup", key)
        return [place for place in seen[5:] if place is not None]  # it comes from where it was


@pytest.fixture
def screen() -> Iterator[Screen]:
    with closing(Screen()) as found:
        yield found


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "pretrained/catch", tmp_path / "agent"))


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@contextmanager
def playing(agent: Path, display: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    env = os.environ | {"DISPLAY": display, "XDG_STATE_HOME": str(agent.parent / "state"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "dreamer", "play", str(agent), "--device", "cpu", *options],
        env={name: value for name, value in env.items() if name not in ("SDL_VIDEODRIVER", "WAYLAND_DISPLAY")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.communicate()


def within(told: Iterator[T], seconds: float) -> Iterator[T]:
    """What is told, five times a second, for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield next(told)
        time.sleep(0.2)


@pytest.mark.parametrize("where, end", [("real", "alt+F4"), ("dream", "Escape")])
def test_keys_move_the_paddle_of_a_window(where: str, end: str, screen: Screen, agent: Path) -> None:
    before, colour = files(agent), BAR[where]
    dream = ["--dream"] if where == "dream" else []
    with playing(agent, screen.name, "--show", "window", "--episodes", "100000", *dream) as process:
        middles = (screen.middle(colour) for _ in count())
        middle = next((one for one in within(middles, 240) if one is not None), None)
        assert middle is not None and abs(middle - 512) < 20, (middle, process.poll())
        lefts, rights = screen.places(colour, "0"), screen.places(colour, "2")
        # a dream begins, again and again, with frames that were played before it, where no key counts
        apart = 0.6 if where == "real" else 0.3
        assert np.median(rights) - np.median(lefts) > apart, (lefts, rights)
        screen.press("key", "space")  # paused: nothing moves
        time.sleep(1)
        still = screen.picture()
        time.sleep(1)
        assert np.array_equal(still, screen.picture())
        screen.press("key", "space")
        assert any(not np.array_equal(still, page) for page in within((screen.picture() for _ in count()), 30))
        screen.press("key", end)
        out, told = process.communicate(timeout=60)
    assert process.returncode == 0 and not told, told
    assert out.startswith("dreamer at step 12,000\n") and f"{'dream' if dream else 'episode'} 1: score " in out
    assert files(agent) == before  # a window leaves nothing behind


def test_a_window_closes_itself_after_its_episodes(screen: Screen, agent: Path) -> None:
    with playing(agent, screen.name, "--episodes", "2") as process:
        out, told = process.communicate(timeout=300)
    assert process.returncode == 0 and not told and out.count("episode ") == 2 and "video" not in out


def test_a_display_that_is_not_there_is_met_by_a_sentence(agent: Path) -> None:
    with playing(agent, ":9876", "--show", "window") as process:
        _, told = process.communicate(timeout=300)
    assert process.returncode == 2 and "the display opens no window (" in told and "--show video writes a video" in told
    assert "Traceback" not in told
