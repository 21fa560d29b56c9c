"""A scenario of SMAX and a number of environments -> one compiled step of all of them, on the CPU."""

# n environments, N agents, A actions, d observation, S state; C leaves of the state that JaxMARL keeps

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import io
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from env_adapters.errors import TaskError
from env_adapters.smax_pictures import Pictures
from env_adapters.smax_scenarios import TYPES, scenario

NOOP = 4  # "stop": the one action of a dead agent; SMAX has no other no-op
CACHE = "ENV_ADAPTERS_JAX_CACHE"  # a folder for compiled steps, or "off"
_FLAGS = {"--xla_cpu_multi_thread_eigen": "false", "intra_op_parallelism_threads": "1"}


@dataclass(frozen=True)
class Program:
    """The compiled step of n environments, and the sizes that go with it.

    step(carry, action (n, N) int32, renew (n,) bool, keys (n, 2) uint32) -> carry, shown: where `renew`, an episode begins
    whose randomness follows from the row's key alone, and the action is ignored. `carry` is donated: it is gone afterwards.
    A carry is a tuple of arrays (n, ...) called `names`, of which the one called "key" (n, 2) is the randomness to come.
    `blank` is one that no episode has begun in. limit: actions of the longest episode. pictures: of what `shown` holds.
    """

    step: Callable[..., Any]
    names: tuple[str, ...]
    blank: Callable[[], tuple[Any, ...]]
    agents: int
    enemies: int
    actions: int
    width: int
    state_size: int
    limit: int
    pictures: Pictures | None = None


def runtime() -> Any:
    """JAX on the CPU, imported when it is first needed. TaskError where it, or JaxMARL, is missing or elsewhere.

    It must not find a GPU, whose memory torch needs, nor take threads of its own.
    """
    if "jax" not in sys.modules:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        flags = os.environ.get("XLA_FLAGS", "")
        more = [f"{name}={value}" for name, value in _FLAGS.items() if name not in flags]
        os.environ["XLA_FLAGS"] = " ".join([flags, *more]).strip()
    try:
        jax: Any = importlib.import_module("jax")
        jax.config.update("jax_platforms", "cpu")  # does nothing once JAX has looked for devices
        with _quiet():
            importlib.import_module("jaxmarl")
    except ModuleNotFoundError as error:
        raise TaskError(f"smax needs {error.name}; install `env-adapters[smax]`") from error
    if jax.default_backend() != "cpu":
        raise TaskError(
            f"smax runs on the CPU, but JAX has been used on the {jax.default_backend()} in this process: set "
            "JAX_PLATFORMS=cpu before it starts"
        )
    _keep_compiled(jax)
    return jax


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """JaxMARL prints what it imports, and on its way sets both streams to those that Python began with."""
    kept = {name: vars(sys)[name] for name in ("stdout", "stderr", "__stdout__")}
    vars(sys).update(dict.fromkeys(("stdout", "__stdout__"), io.StringIO()))
    try:
        yield
    finally:
        vars(sys).update(kept)


def _keep_compiled(jax: Any) -> None:
    """Let JAX keep what it compiles, unless it was told where, or not to."""
    folder = cache_folder()
    if folder is None or jax.config.jax_compilation_cache_dir is not None:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def cache_folder() -> Path | None:
    """Where compiled steps are kept for later processes, or None."""
    given = os.environ.get(CACHE, "")
    if given == "off":
        return None
    try:
        kept = Path(given or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # an account without a home
        return None
    return (kept if given else kept / "env-adapters" / "jax") / _machine()


def _machine() -> str:
    """Of this processor: compiled code is of no use to another, and homes are shared between machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()}-{hashlib.sha256(flags.encode()).hexdigest()[:12]}"


@functools.cache
def program(name: str, n: int, *, see_enemy_actions: bool, walls_cause_death: bool, attack_mode: str) -> Program:
    """The step of n environments of a scenario; compiled when it is first called, once for all batches of its size."""
    jax = runtime()
    jnp = jax.numpy
    env = game(
        name,
        see_enemy_actions=see_enemy_actions,
        walls_cause_death=walls_cause_death,
        attack_mode=attack_mode,
    )
    agents, units_in_all = tuple(env.agents), len(env.all_agents)
    count = len(agents)

    def split(key: Any) -> tuple[Any, Any]:
        # raw keys travel, so that a snapshot is plain numbers; the kind is named, for a setting of JAX's decides it
        one, two = jax.random.split(jax.random.wrap_key_data(key, impl="threefry2x32"))
        return jax.random.key_data(one), two

    def begin(key: Any) -> tuple[Any, Any]:
        rest, first = split(key)
        return env.reset(first)[1], rest

    def advance(state: Any, key: Any, action: Any) -> tuple[Any, Any, Any]:
        rest, now = split(key)
        chosen = {agent: action[i] for i, agent in enumerate(agents)}
        _, state, reward, _, _ = env.step_env(now, state, chosen)  # env.step would lose the last observation
        return state, rest, reward[agents[0]]  # every ally's is the same

    def show(state: Any) -> dict[str, Any]:
        units = state.state
        seen, may, alive = env.get_obs(state), env.get_avail_actions(state), units.unit_alive
        ours, theirs = alive[:count].any(), alive[count:].any()
        # the package's world state holds places in the map's units and cooldowns that fall without end; an observation has
        # both between 0 and 1, and so has this
        each = env.get_world_state(state)[: -2 * units_in_all].reshape(units_in_all, -1)
        cooling = jnp.clip(each[:, 3] / env.unit_type_weapon_cooldowns[units.unit_types], 0.0, 1.0)
        each = each.at[:, 1:3].divide(jnp.array([env.map_width, env.map_height])).at[:, 3].set(cooling)
        types = units.unit_types / (len(TYPES) - 1)
        return {
            "vector": jnp.stack([seen[agent] for agent in agents]).astype(jnp.float32),
            "state": jnp.concatenate([each.reshape(-1), units.unit_teams, types]).astype(jnp.float32),
            "action_mask": jnp.stack([may[agent] for agent in agents]).astype(bool),
            "alive": alive[:count],
            "last": units.done,
            "terminal": ~(ours & theirs),
            "won": ours & ~theirs,
        }

    blank = jax.eval_shape(begin, jax.ShapeDtypeStruct((2,), jnp.uint32))
    form = jax.tree.structure(blank)
    numbers = jax.ShapeDtypeStruct((count,), jnp.int32)
    # a reset gives other types than a step (some are weak), and each kind would be compiled: all become the step's
    kinds = [leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(advance, *blank, numbers)[:2])]
    shapes = [leaf.shape for leaf in jax.tree.leaves(blank)]
    paths = jax.tree_util.tree_flatten_with_path(blank[0])[0]
    names = (*(jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths), "key")

    def step(carry: Any, action: Any, renew: Any, keys: Any) -> tuple[Any, dict[str, Any]]:
        fresh = jax.tree.leaves(jax.vmap(begin)(keys))
        *stepped, reward = jax.vmap(advance)(*jax.tree.unflatten(form, carry), action)

        def chosen(new: Any, old: Any, kind: Any) -> Any:
            rows = renew.reshape(-1, *[1] * (new.ndim - 1))
            return jax.lax.convert_element_type(jnp.where(rows, new, old), kind)

        after = tuple(map(chosen, fresh, jax.tree.leaves(stepped), kinds))
        shown = jax.vmap(show)(jax.tree.unflatten(form, after)[0])
        reward = jnp.where(renew, 0.0, reward).astype(jnp.float32)  # (n,)
        return after, shown | {"reward": jnp.broadcast_to(reward[:, None], (n, count))}

    def zeros() -> tuple[Any, ...]:
        return tuple(jnp.zeros((n, *shape), kind) for shape, kind in zip(shapes, kinds, strict=True))

    return Program(
        step=jax.jit(step, donate_argnums=0),
        names=names,
        blank=zeros,
        agents=count,
        enemies=env.num_enemies,
        actions=env.num_ally_actions,
        width=env.obs_size,
        state_size=env.state_size,
        limit=env.max_steps + 1,  # it looks at the count of steps before it adds this one
        pictures=Pictures(
            count,
            env.num_enemies,
            float(env.map_width),
            tuple(map(float, env.unit_type_sight_ranges)),
            tuple(map(float, env.unit_type_radiuses)),
        ),
    )


def game(name: str, **options: Any) -> Any:
    """JaxMARL's environment of a scenario, against its scripted enemy."""
    import jax
    import jax.numpy as jnp

    one = scenario(name)
    smax: Any = importlib.import_module("jaxmarl.environments.smax")
    if one.shipped:
        return smax.HeuristicEnemySMAX(scenario=smax.map_name_to_scenario(name), **options)
    drawn = bool(one.drawn)
    units = jnp.array(one.units, jnp.uint8)
    env: Any = smax.HeuristicEnemySMAX(scenario=smax.Scenario(units, *one.sides, drawn, drawn), **options)
    if drawn:
        kinds = jnp.array([TYPES.index(kind) for kind in one.drawn], jnp.uint8)

        class Drawn:
            """Both sides have the same units, each of one of the types, as likely as the others."""

            def generate(self, key: Any) -> Any:
                ours = kinds[jax.random.randint(key, (one.size,), 0, len(kinds))]
                return jnp.concatenate([ours, ours])

        vars(env)["_env"].unit_type_generator = Drawn()  # before anything is compiled; there is no other door
    return env
