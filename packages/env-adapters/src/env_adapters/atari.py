"""`atari100k_<game>`: the Atari 2600 through ale-py, under a named protocol.

Scores are comparable only within one protocol, so every fact that moves a score is a switch and is listed in
`Atari.protocol`. "dreamerv3" is the environment of the DreamerV3 scores, "storm" that of the STORM scores.
"""

# n raw frames are 210 x 160 (or 250 x 160) RGB at 60 Hz; one agent step is `repeat` raw frames

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from env_adapters.errors import TaskError

# The 26 games of the benchmark, as they are usually written.
# fmt: off
GAMES = (
    "alien", "amidar", "assault", "asterix", "bank_heist", "battle_zone", "boxing", "breakout", "chopper_command",
    "crazy_climber", "demon_attack", "freeway", "frostbite", "gopher", "hero", "james_bond", "kangaroo", "krull",
    "kung_fu_master", "ms_pacman", "pong", "private_eye", "qbert", "road_runner", "seaquest", "up_n_down",
)
# fmt: on

PROTOCOLS: dict[str, dict[str, Any]] = {
    "dreamerv3": {
        "sticky": 0.0,
        "noops": 30,
        "resize": "pillow-bilinear",
        "lives": "unused",
        "episode_seed": "own",
    },
    # every reset repeats one seed, so that all episodes share their start and their sticky draws
    "storm": {"sticky": 0.25, "noops": 0, "resize": "opencv-area", "lives": "signal", "episode_seed": "same"},
}
# bytes of the console's memory that are known, by name: found by what the raw frames show (tests/test_atari.py)
PLACES: dict[str, dict[str, list[int]]] = {
    "breakout": {"ball": [99, 101], "paddle": [72]},  # x and y, and x
    "freeway": {"chicken": [14]},  # y, from below
}
_COMMON: dict[str, Any] = {
    "size": 64,
    "repeat": 4,
    "pool": 2,
    "actions": "minimal",
    "limit": 108_000,
    "limit_is_terminal": False,
}
_CHOICES = {
    "lives": ("unused", "signal"),
    "actions": ("minimal", "all"),
    "resize": ("pillow-bilinear", "opencv-area"),
    "episode_seed": ("own", "same"),
}


class Atari(gymnasium.Env[dict[str, Any], Any]):
    """One game; observation `image` uint8 (size, size, 3), action Discrete, rewards as the game counts them.

    protocol: "dreamerv3" (no sticky actions, uniform 0..30 no-ops at reset, PIL bilinear resize, lives unused) or
        "storm" (sticky 0.25 per raw frame, no no-ops, OpenCV area resize, lost lives signalled, one seed for all
        episodes). Common to both: RGB, minimal actions, repeat 4, no reward clipping, and a truncation after 108,000
        raw frames. The switches below replace one fact of it; the protocol's name then says which were changed.
    sticky: probability, per raw frame, that the emulator repeats the previous action.
    noops: before the first record, uniform 0..noops raw frames pass with the no-op; they count nowhere.
    repeat, pool: an action lasts `repeat` raw frames; the image is the pixelwise maximum of the last `pool` of them
        (fewer if the game ends first). The image of a reset is its one raw frame: nothing of an earlier episode.
    lives: "unused", or "signal": `info["life_loss"]` says that this step lost a life while the episode goes on; the
        step dictionary then has a bool entry `life_loss`, which is no observation. STORM's public code stores
        `terminal or life_loss` as termination.
    limit: raw frames after which the episode is truncated, or terminates with limit_is_terminal=True, as in the
        public DreamerV3 code.
    episode_seed: "own" seed for each episode, or the "same" for all of an environment (used by the vector form).

    `told` has the console's memory, `ram` (128,) as shares of 255 after the last raw frame, for probes; of Breakout and
    Freeway also the bytes that PLACES names.

    A reset starts from power-on, so that an episode follows from its seed and actions alone. (The public codes press
    the console's reset instead; some games then carry memory over from the episode before.) There is no snapshot of the
    emulator here, `make` adds one that executes the episode again: cloneState of ale-py 0.12.1, random state included,
    does not bring Q*bert back exactly (its memory differs one frame later), nor the screen of Road Runner.

    >>> env = Atari("pong")
    >>> env.reset(seed=0)[0]["image"].shape, int(env.action_space.n), env.protocol["name"]
    ((64, 64, 3), 6, 'dreamerv3')
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012  # gymnasium declares it so
    env_adapters = True

    def __init__(
        self,
        game: str,
        protocol: str = "dreamerv3",
        size: int | None = None,
        repeat: int | None = None,
        pool: int | None = None,
        sticky: float | None = None,
        noops: int | None = None,
        actions: str | None = None,
        resize: str | None = None,
        lives: str | None = None,
        limit: int | None = None,
        limit_is_terminal: bool | None = None,
        episode_seed: str | None = None,
        render_mode: str | None = None,
    ) -> None:
        given = {
            "size": size,
            "repeat": repeat,
            "pool": pool,
            "sticky": sticky,
            "noops": noops,
            "actions": actions,
            "resize": resize,
            "lives": lives,
            "limit": limit,
            "limit_is_terminal": limit_is_terminal,
            "episode_seed": episode_seed,
        }
        facts = _facts(protocol, given)
        try:
            import ale_py
        except ImportError as error:
            raise TaskError("atari100k needs ale-py; install `env-adapters[atari]`") from error
        self._rom = str(ale_py.roms.get_rom_path(_rom(game)))
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._ale = ale_py.ALEInterface()
        self._ale.setFloat("repeat_action_probability", float(facts["sticky"]))
        self._ale.loadROM(self._rom)
        self._shrink = _resizer(facts["resize"], facts["size"])
        minimal = facts["actions"] == "minimal"
        self._actions = self._ale.getMinimalActionSet() if minimal else self._ale.getLegalActionSet()
        height, width = self._ale.getScreenDims()
        self._screens = np.zeros((facts["pool"], height, width, 3), np.uint8)  # ring of the last raw frames

        side = facts["size"]
        self.observation_space = spaces.Dict({"image": spaces.Box(0, 255, (side, side, 3), np.uint8)})
        self.action_space = spaces.Discrete(len(self._actions))
        self.render_mode = render_mode
        self.repeat: int = facts["repeat"]
        self.signals = ("life_loss",) if facts["lives"] == "signal" else ()
        self.protocol: dict[str, Any] = {
            **facts,
            "suite": "atari100k",
            "game": _rom(game),
            "colour": "rgb",
            "clip_rewards": False,
            "start": "power-on",
            "emulator": f"ale-py {ale_py.__version__}",
        }
        self._sticky, self._noops, self._limit = facts["sticky"], facts["noops"], facts["limit"]
        self._limit_is_terminal = facts["limit_is_terminal"]
        self._frames = self._lives = self._shown = 0
        self._over = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Power-on with a seed (drawn if there is none), then the no-ops. About 70 ms."""
        super().reset(seed=seed)
        # The emulator takes a seed only when it loads the game. That also clears what a console reset leaves behind.
        self._ale.setInt("random_seed", int(self.np_random.integers(2**31)))
        self._ale.loadROM(self._rom)
        self._ale.reset_game()
        noops = int(self.np_random.integers(self._noops + 1))
        for _ in range(noops):
            self._ale.act(0)
            if self._ale.game_over():
                self._ale.reset_game()
        self._frames, self._lives, self._over = 0, self._ale.lives(), False
        self._grab(0)
        return {"image": self._shrink(self._screens[0])}, self._info(False) | {"noops": noops}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """`repeat` raw frames of one action; rewards are summed."""
        if self._over:
            raise gymnasium.error.ResetNeeded("the episode has ended; call reset")
        code, reward, pool = self._actions[action], 0, len(self._screens)
        terminated = truncated = False
        for frame in range(self.repeat):
            reward += self._ale.act(code)
            self._grab(frame % pool)
            self._frames += 1
            terminated = self._ale.game_over()
            truncated = self._frames >= self._limit and not terminated
            if terminated or truncated:
                break
        pooled = self._screens.max(0) if frame + 1 >= pool else self._screens[: frame + 1].max(0)
        lost, self._lives = self._ale.lives() < self._lives, self._ale.lives()
        if truncated and self._limit_is_terminal:
            terminated, truncated = True, False
        self._over = terminated or truncated
        return {"image": self._shrink(pooled)}, float(reward), terminated, truncated, self._info(lost)

    def render(self) -> Any:
        """The last raw frame, (210, 160, 3) for most games."""
        return self._screens[self._shown].copy()

    @property
    def told(self) -> dict[str, NDArray[np.float32]]:
        """The console's memory (128,), and what is known of it, as shares of 255."""
        ram = self._ale.getRAM().astype(np.float32) / np.float32(255)
        return {"ram": ram} | {name: ram[at] for name, at in PLACES.get(self.protocol["game"], {}).items()}

    def _grab(self, slot: int) -> None:
        self._shown = slot
        self._ale.getScreenRGB(self._screens[slot])

    def _info(self, lost: bool) -> dict[str, Any]:
        return {"lives": self._lives, "life_loss": lost, "frames": self._frames}


def _facts(protocol: str, given: dict[str, Any]) -> dict[str, Any]:
    """The protocol's facts with the given ones replaced; its name tells of the replaced."""
    if protocol not in PROTOCOLS:
        raise TaskError(f"atari100k has no protocol {protocol!r}; it has {', '.join(PROTOCOLS)}")
    preset = _COMMON | PROTOCOLS[protocol]
    facts = preset | {name: value for name, value in given.items() if value is not None}
    for name, allowed in _CHOICES.items():
        if facts[name] not in allowed:
            raise TaskError(f"atari100k: {name} is {facts[name]!r}; it is one of {', '.join(allowed)}")
    for name in ("size", "repeat", "pool", "limit"):
        if facts[name] < 1:
            raise TaskError(f"atari100k: {name} is {facts[name]}; it is at least 1")
    if not 0 <= facts["sticky"] <= 1 or facts["noops"] < 0:
        raise TaskError("atari100k: sticky is a probability and noops a number of frames")
    changed = sorted(name for name, value in facts.items() if value != preset[name])
    name = f"{protocol}, changed: {', '.join(changed)}" if changed else protocol
    return {"name": name, **facts}


@functools.cache
def _roms() -> dict[str, str]:
    """Name without underscores -> the emulator's name."""
    try:
        from ale_py import roms
    except ImportError as error:
        raise TaskError("atari100k needs ale-py; install `env-adapters[atari]`") from error
    return {one.replace("_", ""): one for one in roms.get_all_rom_ids()}


def _rom(game: str) -> str:
    """The emulator's name of a game, however its words are joined.

    >>> _rom("james_bond"), _rom("MsPacman")
    ('jamesbond', 'ms_pacman')
    """
    known, plain = _roms(), game.lower().replace("_", "")
    if plain not in known:
        close = [known[one] for one in difflib.get_close_matches(plain, list(known), 3, 0.6)]
        hint = f"close: {', '.join('atari100k_' + one for one in close)}" if close else f"known: {', '.join(GAMES)}"
        raise TaskError(f"atari100k has no game {game!r}; {hint}")
    return known[plain]


def _resizer(method: str, size: int) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """(H, W, 3) -> (size, size, 3)."""
    if method == "opencv-area":
        try:
            import cv2
        except ImportError as error:
            raise TaskError(
                "resize='opencv-area' needs opencv-python-headless; install `env-adapters[atari]`"
            ) from error

        def area(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
            return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), np.uint8)

        return area
    try:
        from PIL import Image
    except ImportError as error:
        raise TaskError("resize='pillow-bilinear' needs pillow; install `env-adapters[atari]`") from error

    def bilinear(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))

    return bilinear
