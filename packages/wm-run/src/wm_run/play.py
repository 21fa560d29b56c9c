"""`play LOGDIR`: observe -> what the model expects -> choose -> step, drawn; in the environment or inside the dream.

In a window (pygame, where there is a display) a held key takes the action away from the policy; elsewhere a video.
Sizes: A action, H W C image.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from wm_core import draws
from wm_core.agent import Agent
from wm_core.errors import UserError
from wm_core.observations import is_image
from wm_core.types import Carry, Latent, Trace
from wm_core.world import stack

from wm_run import evaluation, filmstrip
from wm_run.filmstrip import IMAGINED, INK, LINE, OBSERVED, PAPER, Pixels
from wm_run.loading import environments, restore
from wm_run.loop import Environments
from wm_run.video import write_video

if TYPE_CHECKING:
    from wm_run.cli import App, Command, Play

FRESH = 20_000  # added to a run's seed, so that neither training nor evaluation has seen these episodes
FPS = 15
SIDE = 240  # pixels of a panel
OVER = 0.5  # a dream ends where the model thinks that going on is less likely than this
Vector = NDArray[np.float32]
Choose = Callable[[Vector], tuple[Vector, str]]  # the policy's action -> the action to take, and who takes it


@dataclass(frozen=True)
class Told:
    """What the model makes of one state: everything it predicts there, and the action that the policy would take."""

    reward: float
    value: float
    cont: float  # probability that the episode goes on, without the discount
    shown: NDArray[Any] | None  # the observation as decoded: (H, W, C) in [0, 1], or a vector (X,)
    action: Vector  # (A,)


@dataclass(frozen=True)
class Moment:
    """One frame: the action in it leads to the next one."""

    t: int  # steps since the episode or dream began
    imagined: bool
    seen: NDArray[Any] | None  # the real observation; None inside a dream
    told: Told
    reward: float | None  # arrived; None inside a dream
    score: float  # of arrived rewards, inside a dream of predicted ones
    action: Vector  # (A,) taken
    who: str
    over: bool


def key_shown(envs: Environments) -> str | None:
    """The observation to draw: the first image, else the first vector, else none."""
    spaces = envs.observation_space.spaces
    images = [key for key, space in spaces.items() if is_image(space)]
    vectors = [key for key, space in spaces.items() if np.dtype(space.dtype).kind == "f" and space.shape]
    return next(iter([*sorted(images), *sorted(vectors)]), None)


class Seer:
    """An agent that says what it expects. Draws depend on `seed` alone."""

    def __init__(self, agent: Agent, key: str | None, *, seed: int, mode: bool = False) -> None:
        self.agent, self.key, self.mode = agent, key, mode
        self.source = draws.Generator(seed, agent.device)
        agent.eval()

    @torch.no_grad()
    def observe(self, carry: Carry, step: Mapping[str, NDArray[Any]]) -> tuple[Trace, Told]:
        """One real step (1, ...)."""
        steps = {name: torch.as_tensor(value)[:, None].to(self.agent.device) for name, value in step.items()}
        with draws.drawing(self.source), self.agent.computing():
            trace = self.agent.world.observe(carry, steps)
            return trace, self._told(self.agent.world.latest(trace))  # what the policy was trained to act on

    @torch.no_grad()
    def begin(self, trace: Trace) -> tuple[Carry, Told]:
        """A dream from a trace's last step. A world may draw where it begins, and the policy then acts on that draw."""
        with draws.drawing(self.source), self.agent.computing():
            carry, latent = self.agent.world.starts(trace, 1)
            return carry, self._told(latent)

    @torch.no_grad()
    def imagine(self, carry: Carry, action: Vector) -> tuple[Carry, Told]:
        """One step of a dream."""
        with draws.drawing(self.source), self.agent.computing():
            given = torch.as_tensor(action)[None].to(self.agent.device)
            carry, latent = self.agent.world.imagine(carry, given)
            return carry, self._told(latent)

    def seen(self, step: Mapping[str, NDArray[Any]]) -> NDArray[Any] | None:
        """The observation to draw: (H, W, C), or flat."""
        value = step[self.key][0] if self.key else None
        return value if value is None or value.ndim == 3 else value.reshape(-1)

    def _told(self, latent: Latent) -> Told:
        """Of a latent (1, ...)."""
        world, behaviour = self.agent.world, self.agent.behaviour
        latent = stack([latent])
        policy = behaviour.policy(latent)
        action = policy.mode() if self.mode else policy.sample()
        critic = getattr(behaviour, "critic", None)  # no promise of Behaviour's
        cont = _number(world.heads["cont"](latent).mode()) / world.discount
        return Told(
            reward=_number(world.heads["reward"](latent).mode()),
            value=_number(critic(latent).mode()) if critic is not None else float("nan"),
            cont=min(1.0, cont),
            shown=_array(world.decoder(latent)[self.key].mode()) if self.key else None,
            action=_array(action),
        )


def _number(value: Tensor) -> float:
    return float(value.float().reshape(()).cpu())


def _array(value: Tensor) -> NDArray[np.float32]:
    """Without its two leading ones."""
    return value[0, 0].float().cpu().numpy()


def by_policy(action: Vector) -> tuple[Vector, str]:
    """Nobody else chooses."""
    return action, "policy"


def in_environment(seer: Seer, envs: Environments, *, seed: int, choose: Choose = by_policy) -> Iterator[Moment]:
    """For ever, episode after episode of one environment."""
    step, carry, t, score = envs.reset(seed), seer.agent.initial(1), 0, 0.0
    while True:
        trace, told = seer.observe(carry, step)
        carry, first = trace.carry, bool(step["first"][0])
        t, score = (0, 0.0) if first else (t + 1, score + float(step["reward"][0]))
        action, who = choose(told.action)
        seen = seer.seen(step)
        yield Moment(t, False, seen, told, float(step["reward"][0]), score, action, who, bool(step["last"][0]))
        step = envs.step(action[None])


def in_dream(
    seer: Seer, envs: Environments, *, seed: int, observed: int, choose: Choose = by_policy
) -> Iterator[Moment]:
    """For ever: `observed` real steps, then a dream until the model expects the end or can hold no more, and so on."""
    carry, step = seer.agent.initial(1), envs.reset(seed)
    dynamics = seer.agent.world.dynamics
    while True:
        for t in range(observed):
            trace, told = seer.observe(carry, step)
            carry = trace.carry
            if t == observed - 1:
                dream, told = seer.begin(trace)
            seen = seer.seen(step)
            yield Moment(t, False, seen, told, float(step["reward"][0]), 0.0, told.action, "policy", False)
            step = envs.step(told.action[None])
        action, t, score, over = told.action, observed, 0.0, False
        while not over:
            dream, told = seer.imagine(dream, action)
            action, who = choose(told.action)
            score, over = score + told.reward, told.cont < OVER or dynamics.left(dream) < 1
            yield Moment(t, True, None, told, None, score, action, who, over)
            t += 1


# ---- drawing


def panel(value: NDArray[Any] | None, most: float = 1.0) -> Pixels:
    """An observation as uint8 (SIDE, SIDE, 3) or larger: an image, the bars of a vector in units of `most`, or grey."""
    if value is None:
        return np.full((SIDE, SIDE, 3), filmstrip.GONE, np.uint8)
    if value.ndim == 3:
        return filmstrip.enlarged(filmstrip.rgb(value)[None, None, None], SIDE)[0, 0, 0]
    page = np.full((SIDE, SIDE, 3), PAPER, np.uint8)
    height = max(1, SIDE // max(1, len(value)))
    middle = SIDE // 2
    page[:, middle] = INK
    for i, one in enumerate(value[: SIDE // height]):
        length = round(float(np.clip(np.nan_to_num(one) / most, -1, 1)) * (middle - 2))
        left, right = min(middle, middle + length), max(middle, middle + length) + 1
        page[i * height + 1 : max(i * height + 2, (i + 1) * height - 1), left:right] = OBSERVED
    return page


class Canvas:
    """Moments -> pictures uint8 (h, w, 3) of one size."""

    def __init__(self) -> None:
        self.most = 1e-6  # the largest number of any vector so far
        self.size: tuple[int, ...] | None = None

    def draw(self, moment: Moment, hint: str = "") -> Pixels:
        """What is seen | what the model decodes, and the predictions in words under them."""
        told = moment.told
        for value in (moment.seen, told.shown):
            if value is not None and value.ndim == 1 and value.size:
                self.most = max(self.most, float(np.abs(np.nan_to_num(value)).max()))
        right = panel(told.shown, self.most)
        left = panel(moment.seen, self.most)
        if left.shape != right.shape:
            left = np.full_like(right, filmstrip.GONE)
        height, width = right.shape[:2]
        page = np.full((LINE + height + 5 * LINE, 2 * width + 3 * 4, 3), PAPER, np.uint8)
        page[: LINE - 1] = IMAGINED if moment.imagined else OBSERVED
        page[LINE : LINE + height, 4 : 4 + width] = left
        page[LINE : LINE + height, 8 + width : 8 + 2 * width] = right
        title = f"dream, step {moment.t}" if moment.imagined else f"real, step {moment.t}"
        words = [(4, 1, title, PAPER), (8 + width, 1, "dreamed" if moment.imagined else "as the model sees it", PAPER)]
        words += [
            (4, LINE + height + 3 + i * LINE, line, INK) for i, line in enumerate([*caption(moment), hint][:5]) if line
        ]
        return filmstrip.write(page, words)


def caption(moment: Moment) -> list[str]:
    """Predictions and choices in words."""
    told = moment.told
    real = "" if moment.reward is None else f"  (arrived {moment.reward:+.3f})"
    end = "  END" if moment.over else ""
    return [
        f"reward predicted {told.reward:+.3f}{real}",
        f"value {told.value:.3f}   continue {told.cont:.3f}{end}",
        f"score {'dreamed ' if moment.imagined else ''}{round(moment.score, 2) + 0.0:.2f}",
        f"action {action_words(moment.action)}  by {moment.who}",
    ]


def action_words(action: Vector) -> str:
    """A one-hot as its index, anything else as numbers.

    >>> action_words(np.array([0, 0, 1], np.float32)), action_words(np.array([0.5, -1], np.float32))
    ('2', '+0.50 -1.00')
    """
    if len(action) > 1 and sorted(action.tolist())[-2:] == [0, 1] and action.min() == 0:
        return str(int(action.argmax()))
    return " ".join(f"{one:+.2f}" for one in action[:8]) + (" ..." if len(action) > 8 else "")


# ---- a window


DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
ARROWS = {"left": (0, -1.0), "right": (0, 1.0), "down": (1, -1.0), "up": (1, 1.0)}
KEYS = "0-9 a-z: discrete action   arrows: continuous   space: pause   tab: hands off   esc: end"


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

    def show(self, page: Pixels) -> None: ...

    def poll(self) -> tuple[list[str], list[str]]:
        """Names of the keys held now, and of those pressed since the last call; "quit" where the window was closed."""

    def wait(self) -> None: ...

    def close(self) -> None: ...


class Window:
    """A pygame window. Raises ModuleNotFoundError without pygame, pygame.error where no window opens."""

    def __init__(self, title: str, fps: int = FPS) -> None:
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        pygame: Any = importlib.import_module("pygame")
        self._pygame, self._fps, self._title = pygame, fps, title
        pygame.display.init()
        pygame.display.set_mode((320, 240))
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


class Hands:
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


def watch(moments: Iterator[Moment], screen: Screen, hands: Hands, episodes: int) -> None:
    """Show until that many episodes or dreams are over, or the user ends it."""
    canvas, paused = Canvas(), False
    moment = next(moments)
    while True:
        screen.show(canvas.draw(moment, KEYS))
        screen.wait()
        hands.held, pressed = screen.poll()
        if "escape" in pressed or "quit" in pressed:
            return
        paused ^= "space" in pressed
        hands.off ^= "tab" in pressed
        if paused:
            continue
        episodes -= moment.over
        if not episodes:
            return
        moment = next(moments)


def film(moments: Iterator[Moment], episodes: int, frames: int) -> list[Pixels]:
    """Pictures until that many episodes or dreams are over, or as many frames."""
    canvas, pages = Canvas(), []
    for moment in islice(moments, frames):
        pages.append(canvas.draw(moment))
        episodes -= moment.over
        if not episodes:
            break
    return pages


def narrate(moments: Iterator[Moment], kind: str) -> Iterator[Moment]:
    """The same, with a line on stdout where an episode or dream is over."""
    count = 0
    for moment in moments:
        if moment.over:
            count += 1
            print(f"{kind} {count}: score {moment.score:.4g} after {moment.t} steps")
        yield moment


# ---- the command


def play(app: App, command: Command) -> int:
    """Window or video of the last checkpoint at play; prints what it was worth, and where the video is."""
    options: Play = command.options
    if options.mode and options.sample:
        raise UserError("--mode and --sample exclude each other: give one")
    if min(options.episodes, options.frames, options.observed) < 1:
        raise UserError("--episodes, --frames and --observed must be at least 1")
    changed = evaluation.changed(command.saved, command.config, "play")
    loaded = restore(app, Path(options.logdir), command.config)
    config, agent = loaded.config, loaded.agent
    print(f"{app.name} at step {loaded.step:,}", flush=True)
    seed = config.seed + FRESH
    screen = open_window(options.show, f"{app.name}: {config.task}{', dreamed' if options.dream else ''}")
    with closing(environments(app, replace(config, workers=0), 1)) as envs:
        seer = Seer(agent, key_shown(envs), seed=seed, mode=options.mode)
        hands = Hands(tuple(envs.action_spec.discrete), int(envs.action_spec.continuous))
        choose: Choose = by_policy if screen is None else hands
        if options.dream:
            moments = in_dream(seer, envs, seed=seed, observed=options.observed, choose=choose)
        else:
            moments = in_environment(seer, envs, seed=seed, choose=choose)
        moments = narrate(moments, "dream" if options.dream else "episode")
        if screen is not None:
            with closing(screen):
                watch(moments, screen, hands, options.episodes)
            return 0
        pages = film(moments, options.episodes, options.frames)
    name = "play_dream" if options.dream else "play"
    path = Path(options.logdir) / "video" / f"{name}-{evaluation.stem(loaded.step, 'sample', changed)}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, np.stack(pages), FPS)
    print(path)
    return 0
