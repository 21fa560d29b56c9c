"""A run folder -> its world model as a gymnasium environment: `as_env(logdir)`, `as_vector_env(logdir, n)`."""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from wm_core.errors import UserError

from wm_run import agents
from wm_run.app import App
from wm_run.dream_batch import Dreams
from wm_run.dream_shown import Decoded, Flat, image_of
from wm_run.dream_starts import Given, Starts, moved, of_recording, of_run
from wm_run.durable import lost
from wm_run.loading import Loaded, load, with_world
from wm_run.manifest import kept_config

if TYPE_CHECKING:
    from wm_run.dream_env import DreamEnv, DreamVectorEnv, Parts

LONGEST = 50  # actions of a dream where nothing is said and the model can hold as many


def as_env(
    run: str | Path | Loaded,
    *,
    starts: str | Path | Mapping[str, Any] | None = None,
    part: str = "train",
    context: int = 16,
    horizon: int | None = None,
    mode: bool = False,
    observations: Literal["decoded", "latent"] = "decoded",
    render_mode: str | None = None,
    device: str = "auto",
    app: App | None = None,
) -> DreamEnv:
    """The world model of a run as a gymnasium environment that dreams; needs wm-run[gym].

    `reset` observes a recorded row of `context` steps and begins a dream at its end; `step` is one step of the prior. The
    reward is the mean of the reward's head; the episode terminates by the continue's head and is truncated after `horizon`
    actions. Actions are the task's native ones. Weights, run folder and recording are only read.

    Args:
        run: a run folder, the name of a published agent (`wm_run.agents`), which has no replay to begin in, or what `load` gave.
        starts: where dreams begin: None, in the run's own replay; a recording's folder; or rows as arrays, the
            observations (n, T, ...) and `action` (n, T, A), all T steps being the context.
        part: of a recording, "train" or "held_out".
        context: steps of a row. A dynamics with a memory observes the steps before it too, as many as it remembers.
        horizon: actions of a dream; None for 50, or as many as the model can hold.
        mode: latents are modes and an episode ends where that is likelier than not; False samples both.
        observations: "decoded", in the task's own observation space, or "latent", the state as one flat Box.
        render_mode: "rgb_array" draws the decoded image, where there is one.
        device: "auto", "cpu" or "cuda".
        app: whose run it is, where that is no installed app's.

    Raises:
        UserError: no run, no replay or recording to begin in, no world model (mappo), a team, a horizon that the model
            cannot hold, or gymnasium is missing.
    """
    made = _parts(run, starts, part, context, horizon, mode, observations, device, app)
    return _module().DreamEnv(made, render_mode)


def as_vector_env(
    run: str | Path | Loaded,
    n: int,
    *,
    starts: str | Path | Mapping[str, Any] | None = None,
    part: str = "train",
    context: int = 16,
    horizon: int | None = None,
    mode: bool = False,
    observations: Literal["decoded", "latent"] = "decoded",
    render_mode: str | None = None,
    device: str = "auto",
    app: App | None = None,
) -> DreamVectorEnv:
    """n dreams as one gymnasium VectorEnv, one call of the model a step; a dream that is over begins anew at the next step.

    With `mode` they are n single ones; samples are drawn for all n at once, so there each depends on n. The rest as in
    `as_env`.
    """
    made = _parts(run, starts, part, context, horizon, mode, observations, device, app)
    return _module().DreamVectorEnv(made, n, render_mode)


def app_of(logdir: Path) -> App:
    """The installed app that made a run. Raises UserError where there is none."""
    path = logdir / "config.toml"
    try:
        values: Mapping[str, Any] = kept_config(logdir) if lost(path) else tomllib.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not TOML: {error}") from error
    name = str(values.get("run", {}).get("app", ""))
    if not name:
        raise UserError(f"there is no run in {logdir} (no config.toml): name the folder that `train` printed")
    agents.check_app(logdir, name)
    try:
        found: App = importlib.import_module(f"{name}.cli").APP
    except ModuleNotFoundError as error:
        raise UserError(
            f"{logdir} holds a run of {name}, which is not installed here ({error.name} is missing): install it"
        ) from error
    return found


def _module() -> Any:
    """The module that imports gymnasium."""
    try:
        return importlib.import_module("wm_run.dream_env")
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("gymnasium"):
            raise
        raise UserError("a dream as an environment needs gymnasium: install wm-run[gym]") from error


def _parts(
    run: str | Path | Loaded,
    starts: str | Path | Mapping[str, Any] | None,
    part: str,
    context: int,
    horizon: int | None,
    mode: bool,
    observations: str,
    device: str,
    app: App | None,
) -> Parts:
    gym = _module()
    if context < 1 or (horizon is not None and horizon < 1):
        raise UserError(f"context and horizon of a dream must be at least 1, not {context} and {horizon}")
    if observations not in ("decoded", "latent"):
        raise UserError(f"observations are 'decoded' or 'latent', not {observations!r}")
    loaded = run if isinstance(run, Loaded) else load(app or app_of(agents.found(run)), run, device=device)
    agent = with_world(loaded.app, loaded.agent, "it dreams nothing that could be an environment")
    if loaded.team is not None:
        raise UserError(
            f"{loaded.config.task} has {loaded.team.agents} agents, and a dream as an environment has a single one: "
            "`play --dream` shows a team's"
        )
    space = loaded.observation_space
    keys, world = list(space.spaces), agent.world
    remembers = max(world.stores.values(), default=0)
    past = remembers if remembers > 1 else 0  # of one step the state is kept, which the context makes anew
    found: Starts
    if isinstance(starts, Mapping):
        found = Given(starts, keys, loaded.action_size)
    elif starts is not None:
        found = of_recording(Path(starts), part, keys, context, past)
    else:
        if loaded.logdir is None:
            raise UserError("what was loaded does not say from where: give starts, or the run's folder")
        found = of_run(loaded.logdir, loaded.replay, keys, context, past)
    dreams = Dreams(agent, mode=mode)
    room = world.dynamics.left(world.dynamics.initial(1)) - found.length
    if room < (horizon or 1):
        raise UserError(
            f"this model holds {int(room) + found.length} steps, and {found.length} observed with {horizon or 1} dreamed are "
            "more: give a smaller context or horizon"
        )
    steps, _ = found.draw([np.random.default_rng(0)])
    latent = gym.trial(dreams, moved(steps, agent.device))
    if observations == "latent":
        flat = Flat(latent)
        look: Any = flat
        shown = gym.spaces.Box(-np.inf, np.inf, (flat.width,), np.float32)
    else:
        look = dreams.shown(lambda one: Decoded(world, space, one), latent)
        shown = space
    return gym.Parts(
        dreams=dreams,
        starts=found,
        observation_space=shown,
        action_space=loaded.action_space,
        action_size=loaded.action_size,
        encode=_encoder(loaded),
        entries=loaded.entries,
        look=look,
        image=image_of(space),
        horizon=horizon or int(min(room, LONGEST)),
    )


def _encoder(loaded: Loaded) -> Any:
    """A native action -> its vector (A,)."""
    if not loaded.app.encode_action:
        return lambda action: np.asarray(action, np.float32)
    encode, space = loaded.app.part("encode_action"), loaded.action_space

    def encoded(action: Any) -> NDArray[np.float32]:
        vector: NDArray[np.float32] = encode(space, action)
        return vector

    return encoded
