"""Pages -> a window (pygame, where there is a display), and its held keys -> an action instead of the policy's.

Sizes: A action.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from wm_core.errors import UserError

from wm_run.filmstrip import Pixels

FPS = 15
Vector = NDArray[np.float32]

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
UNSEEN = ("offscreen", "dummy")  # drivers that SDL falls back to, or is told to take
ARROWS = {"left": (0, -1.0), "right": (0, 1.0), "down": (1, -1.0), "up": (1, 1.0)}


def by_keys(held: Sequence[str], discrete: Sequence[int], continuous: int, action: Vector) -> Vector | None:
    """The action with what the held keys choose instead, or None where they choose nothing.

    A digit or letter is a value of the first discrete component; arrows are the first two continuous ones.

    >>> by_keys(["2"], (3,), 0, np.array([1, 0, 0], np.float32)).tolist()
    [0.0, 0.0, 1.0]
    >>> by_keys(["up"], (), 2, np.array([0.3, 0.3], np.float32)).tolist()
    [0.30000001192092896, 1.0]
    """
    chosen, any_chosen = action.copy(), False
    for name in held:
        index = DIGITS.find(name) if len(name) == 1 else -1
        if discrete and 0 <= index < discrete[0]:
            chosen[: discrete[0]] = 0
            chosen[index], any_chosen = 1, True
        where, value = ARROWS.get(name, (continuous, 0.0))
        if where < continuous:
            chosen[sum(discrete) + where], any_chosen = value, True
    return chosen if any_chosen else None


def key_hint(discrete: Sequence[int], continuous: int) -> str:
    """What keys do in a window, of those that choose something here; a line, without the policy's part.

    >>> key_hint((3,), 0)
    'hold 0-2: action   space: pause   tab: hands off   esc: end'
    >>> key_hint((), 1)
    'hold left, right: action   space: pause   tab: hands off   esc: end'
    """
    letters = DIGITS[: discrete[0]] if discrete else ""
    spans = [span for span in (letters[:10], letters[10:]) if span]
    names = [span if len(span) == 1 else f"{span[0]}-{span[-1]}" for span in spans]
    names += [", ".join(("left, right", "down, up")[:continuous])] if continuous else []
    return f"hold {' or '.join(names)}: action   space: pause   tab: hands off   esc: end"


def nothing(discrete: Sequence[int], continuous: int) -> Vector:
    """The action of hands off: the first value of every discrete component, zeros.

    >>> nothing((2, 3), 1).tolist()
    [1.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    """
    action = np.zeros(sum(discrete) + continuous, np.float32)
    action[np.cumsum([0, *discrete])[: len(discrete)]] = 1
    return action


class Screen(Protocol):
    """A window, or what a test puts in its place."""

    def show(self, page: Pixels) -> None:
        """A picture (H, W, 3) of bytes; the window takes its size."""

    def poll(self) -> tuple[list[str], list[str]]:
        """Names of the keys held now, and of those pressed since the last call; "quit" where the window was closed."""

    def wait(self) -> None:
        """Until it is time for the next picture."""

    def close(self) -> None:
        """No more is shown."""


class Window:
    """A `Screen`: a pygame window. Raises ModuleNotFoundError without pygame, pygame.error where no window opens."""

    def __init__(self, title: str, fps: int = FPS) -> None:
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        pygame: Any = importlib.import_module("pygame")
        self._pygame, self._fps, self._title = pygame, fps, title
        pygame.display.init()
        pygame.display.set_mode((320, 240), pygame.HIDDEN)  # does one open at all?
        if (driver := pygame.display.get_driver()) in UNSEEN and os.environ.get("SDL_VIDEODRIVER") != driver:
            raise pygame.error("no screen answers, and SDL would draw where nobody sees it")
        pygame.display.quit()  # the next begins with the first page, whose size places it
        pygame.display.init()
        self._clock = pygame.time.Clock()
        self._size = (0, 0)

    def show(self, page: Pixels) -> None:
        size = (page.shape[1], page.shape[0])
        if size != self._size:
            self._screen, self._size = self._pygame.display.set_mode(size), size
            self._pygame.display.set_caption(self._title)
        self._pygame.surfarray.blit_array(self._screen, page.swapaxes(0, 1))
        self._pygame.display.flip()

    def poll(self) -> tuple[list[str], list[str]]:
        pressed = []
        for event in self._pygame.event.get():
            if event.type == self._pygame.QUIT:
                pressed.append("quit")
            elif event.type == self._pygame.KEYDOWN:
                pressed.append(self._pygame.key.name(event.key))
        state, names = self._pygame.key.get_pressed(), [*DIGITS, *ARROWS]
        held = [name for name in names if state[self._pygame.key.key_code(name)]]
        return held + [name for name in pressed if name in names and name not in held], pressed

    def wait(self) -> None:
        self._clock.tick(self._fps)

    def close(self) -> None:
        self._pygame.display.quit()


def has_display() -> bool:
    """Whether a window can be hoped for."""
    names = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in names)


def open_window(show: str, title: str) -> Screen | None:
    """A window, or None for a video. With "window", UserError says what is missing; with "auto", a line on stderr."""
    if show == "video":
        return None
    try:
        if not has_display():
            raise UserError("there is no display here (neither DISPLAY nor WAYLAND_DISPLAY is set)")
        try:
            return Window(title)
        except ModuleNotFoundError as error:
            raise UserError("a window needs the package pygame (uv pip install pygame)") from error
        except Exception as error:
            if type(error).__module__.partition(".")[0] != "pygame":
                raise
            raise UserError(f"the display opens no window ({error})") from error
    except UserError as error:
        if show == "window":
            raise UserError(f"{error}; --show video writes a video") from error
        print(f"{error}: writing a video", file=sys.stderr, flush=True)
        return None


class Keyboard:
    """Who chooses in a window: the keys held, else the policy, or with hands off nobody."""

    def __init__(self, discrete: Sequence[int], continuous: int) -> None:
        self.discrete, self.continuous = discrete, continuous
        self.held: list[str] = []
        self.off = False

    def __call__(self, action: Vector) -> tuple[Vector, str]:
        chosen = by_keys(self.held, self.discrete, self.continuous, action)
        if chosen is not None:
            return chosen, "you"
        return (nothing(self.discrete, self.continuous), "nobody") if self.off else (action, "policy")
