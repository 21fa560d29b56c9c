"""Dreams as gymnasium environments: one, or n at once. Made by `as_env` and `as_vector_env`; gymnasium is imported here alone.

Sizes: n dreams, A width of an action vector, k sequences of h actions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, iterate
from numpy.typing import NDArray
from torch import Tensor
from wm_core.errors import UserError
from wm_core.types import Carry, Latent

from wm_run.dream_batch import Dreams, Simulated
from wm_run.dream_shown import picture
from wm_run.dream_starts import Starts, moved
from wm_run.filmstrip import rgb

RENDERS = {"render_modes": ["rgb_array"], "render_fps": 15}
MIDDLE = 0.5  # where nothing is drawn, a dream ends where the end is likelier than not


@dataclass(frozen=True)
class Parts:
    """What an environment of dreams is made of.

    encode: a native action -> its vector (A,). entries: a native observation -> the entries that the agent reads. look:
    latents (n, ...) -> observations (n, ...). image: the observation that is drawn, or None. horizon: actions of a dream.
    """

    dreams: Dreams
    starts: Starts
    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    action_size: int
    encode: Callable[[Any], NDArray[np.float32]]
    entries: Callable[[Any], dict[str, NDArray[Any]]]
    look: Callable[[Latent], Any]
    image: str | None
    horizon: int

    def vectors(self, actions: Sequence[Any]) -> Tensor:
        """n native actions as vectors (n, A) on the device."""
        stacked = np.stack([self.encode(action) for action in actions])
        return torch.as_tensor(stacked).to(self.dreams.agent.device)

    def pictures(self) -> NDArray[np.uint8]:
        """(n, H, W, 3) as decoded."""
        assert self.image is not None
        image = self.image
        return rgb(self.dreams.shown(lambda latent: picture(self.dreams.world, image, latent)))


def check_render(parts: Parts, render_mode: str | None) -> None:
    """Raises UserError for what cannot be drawn."""
    if render_mode not in (None, "rgb_array"):
        raise UserError(f"a dream is drawn by render_mode='rgb_array', or not at all; it was {render_mode!r}")
    if render_mode and parts.image is None:
        raise UserError("this task shows no image, so a dream of it cannot be drawn: leave render_mode out")


def ended(dreams: Dreams, probability: Tensor, rngs: Sequence[np.random.Generator]) -> NDArray[np.bool_]:
    """(n,) whether an episode is over by its probability of an end: drawn by each generator, or by what is likelier."""
    drawn = MIDDLE if dreams.mode else np.array([rng.random() for rng in rngs])
    over: NDArray[np.bool_] = probability.cpu().numpy() > drawn
    return over


class _Closing:
    """What is left of an environment that was closed: no model, no maps of files."""

    _held: Parts | None

    @property
    def parts(self) -> Parts:
        """What it is made of."""
        if self._held is None:
            raise gymnasium.error.ClosedEnvironmentError("this dream was closed: make another with as_env")
        return self._held


class DreamEnv(_Closing, gymnasium.Env[Any, Any]):
    """One dream. `reset(seed=s)` gives the same start and the same dream; `info` says its stream and step in the recording.

    Beside gymnasium's methods: `simulate`, `follow`, `state` and `load_state`, for planners; by `env.unwrapped`.
    """

    metadata = RENDERS

    def __init__(self, parts: Parts, render_mode: str | None = None) -> None:
        check_render(parts, render_mode)
        self._held: Parts | None = parts
        self.observation_space, self.action_space = parts.observation_space, parts.action_space
        self.render_mode = render_mode
        if parts.image is None:
            self.metadata = {"render_modes": []}
        self.action_size, self.horizon = parts.action_size, parts.horizon
        self._carry: Carry = None  # of an agent that follows a real episode
        self._t, self._seeded = 0, False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        dreams = self.parts.dreams
        if seed is not None or not self._seeded:
            dreams.seed(int(self.np_random.integers(2**62)) if seed is None else seed)
            self._seeded = True
        steps, places = self.parts.starts.draw([self.np_random])
        dreams.observe(moved(steps, dreams.agent.device))
        self._t, self._carry = 0, None
        return self._shown(), {"stream": int(places[0, 0]), "step": int(places[0, 1])}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        dreams = self.parts.dreams
        if dreams.start is None:
            raise gymnasium.error.ResetNeeded("a dream begins with reset(), or with follow(observation)")
        reward, ending = dreams.step(self.parts.vectors([action]))
        self._t += 1
        over = bool(ended(dreams, ending, [self.np_random])[0])
        return self._shown(), float(reward[0]), over, self._t >= self.horizon and not over, {}

    def render(self) -> NDArray[np.uint8] | None:
        """What the decoder shows of the present state, (H, W, 3) uint8."""
        return None if self.render_mode is None else self.parts.pictures()[0]

    def close(self) -> None:
        """Give the model and the maps of the starts free. Twice does no harm."""
        self._held = self._carry = None

    def _shown(self) -> Any:
        seen = self.parts.dreams.shown(self.parts.look)
        return {key: value[0] for key, value in seen.items()} if isinstance(seen, dict) else seen[0]

    # ---- for planners

    def simulate(self, actions: Any) -> Simulated:
        """What the model expects of k sequences of actions (k, h, A) from the present state, in one batch; the state stays.

        Actions are vectors, numpy or torch: a one-hot for each discrete component, then the continuous ones in [-1, 1]
        (`vector` makes one). With mode=True `reward` is what `step` would give.

        Raises:
            UserError: actions of another shape, or more of them ahead than the model can hold.
        """
        dreams = self.parts.dreams
        given = actions if isinstance(actions, Tensor) else torch.as_tensor(np.asarray(actions, np.float32))
        given = given.to(dreams.agent.device, torch.float32)
        if given.ndim != 3 or given.shape[2] != self.action_size or 0 in given.shape:
            raise UserError(
                f"simulate takes actions (k, h, {self.action_size}), sequences of vectors, and was given {tuple(given.shape)}"
            )
        return dreams.simulate(given)

    def vector(self, action: Any) -> NDArray[np.float32]:
        """The vector (A,) of a native action."""
        return self.parts.encode(action)

    def follow(self, observation: Any, action: Any = None) -> Any:
        """Stand where a real episode stands: the agent observes what arrived, and the dream goes on from what it knows. Gives
        what the model shows there, as `reset` does; its latent is what an agent that learned on latents acts on.

        observation: as the task's environment gives it. action: the native one that led to it; None begins an episode, of
        which a memory that outlives episodes knows the ones before. `reset` forgets all that was followed.
        """
        parts = self.parts
        first = action is None
        vector = np.zeros(self.action_size, np.float32) if first else parts.encode(action)
        if first and self._carry is None and not self._seeded:
            parts.dreams.seed(0)
            self._seeded = True
        flag = torch.zeros(1, 1, dtype=torch.bool)
        steps = {key: torch.as_tensor(value)[None, None] for key, value in parts.entries(observation).items()}
        steps |= {"action": torch.as_tensor(vector)[None, None], "first": flag | first, "last": flag, "terminal": flag}
        self._carry = parts.dreams.follow(self._carry, moved(steps, parts.dreams.agent.device))
        self._t = 0
        return self._shown()

    def state(self) -> Any:
        """All that goes on from here, for `load_state` of this environment; by reference, so it costs next to nothing."""
        return self.parts.dreams.state(), self._t, self._carry, self.np_random.bit_generator.state

    def load_state(self, state: Any) -> None:
        """Stand again where `state` was taken; the same actions then give the same dream."""
        dreamt, self._t, self._carry, drawn = state
        self.parts.dreams.load_state(dreamt)
        self.np_random.bit_generator.state = drawn


class DreamVectorEnv(_Closing, VectorEnv[Any, Any, Any]):
    """n dreams by one call of the model a step, each begun anew at the step after its end (next-step autoreset).

    `reset(seed=s)` seeds them with s, s + 1, ..., as n single ones would be; a list gives each its own, None leaves one as it is.
    """

    def __init__(self, parts: Parts, n: int, render_mode: str | None = None) -> None:
        check_render(parts, render_mode)
        if n < 1:
            raise UserError(f"{n} dreams were asked for: at least 1")
        self._held: Parts | None = parts
        self.num_envs, self.render_mode = n, render_mode
        self.metadata = RENDERS | {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.single_observation_space, self.single_action_space = parts.observation_space, parts.action_space
        self.observation_space = batch_space(parts.observation_space, n)
        self.action_space = batch_space(parts.action_space, n)
        self.action_size, self.horizon = parts.action_size, parts.horizon
        self._rngs = [seeding.np_random()[0] for _ in range(n)]
        self._t, self._done, self._seeded = np.zeros(n, np.int64), np.zeros(n, np.bool_), False

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        n, dreams = self.num_envs, self.parts.dreams
        seeds = [None if seed is None else seed + i for i in range(n)] if not isinstance(seed, Sequence) else list(seed)
        if len(seeds) != n:
            raise UserError(f"{len(seeds)} seeds were given for {n} dreams")
        self._rngs = [
            rng if one is None else seeding.np_random(one)[0] for rng, one in zip(self._rngs, seeds, strict=True)
        ]
        if seeds[0] is not None or not self._seeded:
            dreams.seed(int(self._rngs[0].integers(2**62)) if seeds[0] is None else seeds[0])
            self._seeded = True
        steps, places = self.parts.starts.draw(self._rngs)
        dreams.observe(moved(steps, dreams.agent.device))
        self._t[:], self._done[:] = 0, False
        return dreams.shown(self.parts.look), self._infos(np.ones(n, np.bool_), places)

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        dreams, anew = self.parts.dreams, self._done
        if dreams.start is None:
            raise gymnasium.error.ResetNeeded("dreams begin with reset()")
        vectors, info = self.parts.vectors(list(iterate(self.action_space, actions))), {}
        if anew.any():
            steps, places = self.parts.starts.draw([self._rngs[i] for i in np.flatnonzero(anew)])
            flags = torch.as_tensor(anew).to(dreams.agent.device)
            reward, ending = dreams.step(vectors, flags, moved(steps, dreams.agent.device))
            info = self._infos(anew, places)
        else:
            reward, ending = dreams.step(vectors)
        on = np.flatnonzero(~anew)
        rewards, over = np.zeros(self.num_envs), np.zeros(self.num_envs, np.bool_)
        rewards[on] = reward.cpu().numpy()[on]
        over[on] = ended(dreams, ending[torch.as_tensor(on).to(ending.device)], [self._rngs[i] for i in on])
        self._t = np.where(anew, 0, self._t + 1)
        cut = (self._t >= self.horizon) & ~over
        self._done = over | cut
        return dreams.shown(self.parts.look), rewards, over, cut, info

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """A picture of each dream, (H, W, 3) uint8."""
        return None if self.render_mode is None else tuple(self.parts.pictures())

    def close_extras(self, **kwargs: Any) -> None:
        """Give the model and the maps of the starts free."""
        self._held = None

    def _infos(self, which: NDArray[np.bool_], places: NDArray[np.int64]) -> dict[str, Any]:
        """Where the dreams that began lie, as gymnasium lays out infos of some."""
        found: dict[str, Any] = {}
        for name, values in zip(("stream", "step"), places.T, strict=True):
            found[name] = np.zeros(self.num_envs, np.int64)
            found[name][which], found[f"_{name}"] = values, which.copy()
        return found


def trial(dreams: Dreams, steps: Any) -> Latent:
    """A latent (1, ...) as this model has them, of a row that is observed; the dreams stay where they are."""
    before = dreams.state()
    dreams.observe(steps)
    latent = dreams.latent
    dreams.load_state(before)
    assert latent is not None
    return latent
