"""A task's name, or a factory -> one environment (`make`) or a batch of them (`make_vec`)."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar, get_args

import gymnasium
from gymnasium.utils import seeding

from env_adapters import bsuite, dmc, meltingpot, memory_maze, popgym, smac, smac_maps, smax, zoo
from env_adapters.atari import GAMES, Atari
from env_adapters.cue_maze import CueMaze
from env_adapters.errors import TaskError
from env_adapters.facts import fact, offers
from env_adapters.generators import Generators
from env_adapters.gymnasium import make_gym
from env_adapters.meltingpot_substrates import SUBSTRATES
from env_adapters.modules import imported, place
from env_adapters.smax_scenarios import SCENARIOS
from env_adapters.step import Environment
from env_adapters.toys import Catch, DistractedCatch, Doors
from env_adapters.toys_doors_team import DoorsTeam
from env_adapters.toys_teams import Leavers, Whisper
from env_adapters.vector import VectorEnv
from env_adapters.wrappers import adapt

Factory = Callable[..., Environment]
Batch = TypeVar("Batch", VectorEnv, smax.Smax)
_PLAIN = {int, float, bool, str, type(None)}
GROUP = "env_adapters"  # entry points: a suite's name = "module:factory"
_TOYS: dict[str, Factory] = {
    "toy:catch": Catch,
    "toy:catch_distracted": DistractedCatch,
    "toy:cue_maze": CueMaze,
    "toy:doors": functools.partial(Doors, image=False),
    "toy:doors_image": functools.partial(Doors, image=True),
    "toy:doors_team": DoorsTeam,
    "toy:leavers": Leavers,
    "toy:whisper": Whisper,
}
# A suite's prefix -> its factory, to which the rest of the task's name is passed.
_SUITES: dict[str, Factory] = {
    "atari100k_": Atari,
    "bsuite_": bsuite.Bsuite,
    "dmc_": dmc.Control,
    "gym:": make_gym,
    "meltingpot:": meltingpot.MeltingPot,
    "memory_maze_": memory_maze.MemoryMaze,
    "popgym_": popgym.PopGym,
    "smac:": smac.smac,
    "smacv2:": smac.smacv2,
    "smax:": smax.alone,
    "zoo:": zoo.make_zoo,
}
# Suites whose n environments are one thing, with a VectorEnv's methods: prefix -> (rest of the name, n) -> that, and its
# class, whose options are the task's.
_BATCHES: dict[str, tuple[Callable[..., smax.Smax], Callable[..., Any]]] = {"smax:": (smax.batch, smax.Smax)}


def tasks() -> list[str]:
    """Names of the built-in tasks and of the suites that installed packages publish.

    >>> tasks()[-7:]
    ['toy:catch_distracted', 'toy:cue_maze', 'toy:doors', 'toy:doors_image', 'toy:doors_team', 'toy:leavers', 'toy:whisper']
    """
    built_in = [f"atari100k_{game}" for game in GAMES] + [f"dmc_{name}" for name in dmc.TASKS]
    built_in += [f"bsuite_{name}/{id}" for name, count in bsuite.EXPERIMENTS.items() for id in range(count)]
    built_in += [f"memory_maze_{size}" for size in memory_maze.SIZES] + [f"popgym_{name}" for name in popgym.TASKS]
    built_in += [f"smac:{name}" for name in smac_maps.MAPS] + [f"smacv2:{name}" for name in smac_maps.SCENARIOS]
    built_in += [f"smax:{name}" for name in SCENARIOS] + [f"meltingpot:{name}" for name in SUBSTRATES]
    return sorted([*built_in, *_TOYS, *(one.name for one in _published())])


def make(
    task: str | Factory,
    *,
    seed: int = 0,
    grids: Collection[str] | None = None,
    drop: Collection[str] | None = None,
    **options: Any,
) -> Environment:
    """One environment with a Dict observation space, a `protocol` and snapshots.

    task: `atari100k_<game>`, `dmc_<domain>_<task>`, `dmc_vision_<domain>_<task>`, `memory_maze_<size>`,
        `bsuite_<experiment>/<id>`, `popgym_<name>`, `toy:catch`, `toy:catch_distracted`, `toy:cue_maze`, `toy:doors`,
        `toy:doors_image`, `toy:doors_team`, `toy:leavers`, `toy:whisper`, `smac:<map>`, `smacv2:<race>_<n>_vs_<m>`, `zoo:<module>`, `gym:<id>`, `<module>:<factory>`, the name of a published suite (alone, or followed by ":" or "_" and what is passed to
        it), or a callable that returns a gymnasium.Env.
    seed: of everything random before the first seeded reset, and of what outlives episodes. grids, drop: see `make_vec`.
    options: keyword arguments of the factory.

    TaskError, one sentence, for an unknown task, an option it does not take, a missing extra, or a space that does
    not fit.

    >>> make("gym:CartPole-v1").observation_space.spaces.keys()
    dict_keys(['vector'])
    """
    name, factory, leading = _find(task)
    _check_options(name, factory, leading, options)
    generators = Generators(seed)
    with generators:
        env = factory(*leading, **options)
    if not isinstance(env, gymnasium.Env):
        raise TaskError(f"{name} returned a {type(env).__name__}, not a gymnasium.Env")
    env = adapt(env, name, generators, grids, drop)
    env.unwrapped.np_random = seeding.np_random(seed)[0]
    fact(env, "reseed", lambda seed: None)(seed)
    return env


def make_vec(
    task: str | Factory,
    n: int,
    *,
    workers: int | None = None,
    timeout: float = 60.0,
    attempts: int = 5,
    restore: bool = True,
    grids: Collection[str] | None = None,
    drop: Collection[str] | None = None,
    wishes: Mapping[str, Any] | None = None,
    **options: Any,
) -> VectorEnv | smax.Smax:
    """n environments of a task (see `make`) that step together (see VectorEnv).

    Also of `smax:<scenario>`, which gives a `smax.Smax`: it has a VectorEnv's methods, and records with an agents axis.

    workers: processes, 0 for none, None for the default: none for toys and for one environment, else one per core.
        A factory must then be importable, or picklable by cloudpickle. timeout: seconds until a worker counts as hung.
    attempts: failures of an environment in a row that are one too many. restore: False for what cannot be put back.
    grids: names of small observations of bytes that are grids of symbols and no pictures, where their space does not tell;
        None plays a few steps of the first environment to find out, and `VectorEnv.grids` says what was found.
    drop: names of observations that are left out; None leaves out what is no array, as a text, with a notice, and
        `VectorEnv.drop` says what that was.
    wishes: options for the suites that have them, left out elsewhere; `options` must be taken.

    >>> make_vec("toy:doors", 16).reset(seed=0)["vector"].shape
    (16, 36)
    """
    granted = _granted(task, wishes or {}) | options
    for prefix, (batch, options_of) in _BATCHES.items():
        if isinstance(task, str) and task.startswith(prefix):
            name = task.removeprefix(prefix)
            _check_options(task, options_of, (name, str(n)), granted)
            return _with_options(batch(name, n, workers=workers, grids=grids, drop=drop, **granted), options)
    factory = _Making(task, granted, None if grids is None else tuple(grids), None if drop is None else tuple(drop))
    envs = VectorEnv(factory, n, workers=workers, timeout=timeout, attempts=attempts, restore=restore)
    return _with_options(envs, options)


def _with_options(envs: Batch, options: Mapping[str, Any]) -> Batch:
    """The environments, whose protocol says which options were given: they change what a score means."""
    if options:
        envs.protocol["options"] = dict(options)
    return envs


def _granted(task: str | Factory, wishes: Mapping[str, Any]) -> dict[str, Any]:
    known = options_of(task, wishes) if isinstance(task, str) else ()
    return {name: value for name, value in wishes.items() if name in known}


def options_of(task: str, names: Collection[str]) -> tuple[str, ...]:
    """Which of these names are options that a task of a suite of ours has. A stranger's option of that name may mean another
    thing.

    >>> options_of("atari100k_pong", ["protocol", "players"]), options_of("toy:catch", ["protocol"])
    (('protocol',), ())
    """
    for prefix, factory in (_SUITES | {prefix: options_of for prefix, (_, options_of) in _BATCHES.items()}).items():
        if task.startswith(prefix):
            known = inspect.signature(factory).parameters
            return tuple(name for name in names if name in known)
    return ()


def _check_options(name: str, factory: Factory, leading: tuple[str, ...], options: dict[str, Any]) -> None:
    """TaskError for an option that the factory does not take, or of another plain type than it declares."""
    try:
        signature = inspect.signature(factory, eval_str=True)
    except (ValueError, NameError):  # no signature, or annotations that exist for a type checker only
        return
    known = list(signature.parameters)[len(leading) :]
    open_ended = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in signature.parameters.values())
    for option, value in options.items():
        if option not in known and not open_ended:
            raise TaskError(f"{name} has no option {option!r}; it has {', '.join(known) or 'none'}")
        wanted = signature.parameters[option].annotation if option in known else inspect.Parameter.empty
        kinds = set(get_args(wanted) or (wanted,))
        if kinds <= _PLAIN and not _fits(value, kinds):
            allowed = " or ".join(sorted(kind.__name__ for kind in kinds - {type(None)}))
            raise TaskError(f"{name}: the option {option} is {value!r}, a {type(value).__name__}; it is {allowed}")
    try:
        signature.bind(*leading, **options)
    except TypeError as error:
        raise TaskError(f"{name}: {error}") from error


def _fits(value: Any, kinds: set[Any]) -> bool:
    return type(value) in kinds or (type(value) is int and float in kinds)


@dataclass(frozen=True)
class _Making:
    """index -> an environment of a task."""

    task: str | Factory
    options: dict[str, Any]
    grids: tuple[str, ...] | None
    drop: tuple[str, ...] | None

    def __call__(self, index: int) -> Environment:
        return make(self.task, seed=index, grids=self.grids, drop=self.drop, **self.options)

    def like(self, one: Environment) -> _Making:
        """The same, where what was found out about `one` holds for all: none of them is asked again."""
        return replace(self, grids=getattr(one, "grids", ())) if self.grids is None and offers(one) else self


def _find(task: str | Factory) -> tuple[str, Factory, tuple[str, ...]]:
    """A task's name, its factory, and the positional arguments that its name holds."""
    if not isinstance(task, str):
        if not callable(task):
            raise TaskError(f"a task is a name or a callable that returns a gymnasium.Env, not {task!r}")
        return getattr(task, "__name__", type(task).__name__), task, ()
    if task in _TOYS:
        return task, _TOYS[task], ()
    for prefix, factory in _SUITES.items():
        if task.startswith(prefix):
            return task, factory, (task.removeprefix(prefix),)
    for one in _published():
        if task == one.name:
            return task, _load(one, task), ()
        if task.startswith((f"{one.name}:", f"{one.name}_")):
            return task, _load(one, task), (task[len(one.name) + 1 :],)
    module, colon, attribute = task.partition(":")
    if colon and module and attribute and module != "toy":
        return task, _imported(task, module, attribute), ()
    raise TaskError(f"there is no task {task!r}; {_advice(task)}")


def code_of(task: str) -> str | None:
    """What is run because a task's name says so: the module of `<module>:<factory>`, `gym:<module>:<id>` or `zoo:<module>`,
    with where it lies unless it is installed; None of a suite's task, whose code its name does not choose.

    >>> code_of("toy:catch"), code_of("gym:CartPole-v1"), code_of("zoo:mpe2.simple_spread_v3")
    (None, None, None)
    >>> code_of("numpy:eye"), code_of("gym:numpy:Walk-v0"), code_of("zoo:numpy.random")
    ('numpy', 'numpy', 'numpy.random')
    """
    first, _, rest = task.partition(":")
    if task.startswith("gym:"):
        module, colon, _ = rest.partition(":")
        named = module if colon else ""
    elif task.startswith("zoo:"):
        named = "" if zoo.ours(rest) else rest
    elif task in _TOYS or task.startswith(tuple(_SUITES)) or any(_names(one, task) for one in _published()):
        named = ""
    else:
        named = first if rest and first != "toy" else ""
    return f"{named} {place(named)}".strip() if named else None


def _names(one: EntryPoint, task: str) -> bool:
    """Whether a task is of the suite of this entry point."""
    return task == one.name or task.startswith((f"{one.name}:", f"{one.name}_"))


def _published() -> list[EntryPoint]:
    # the longest name first: a suite "grid_big" is not the task "big" of a suite "grid"
    return sorted(entry_points(group=GROUP), key=lambda one: -len(one.name))


def _load(one: EntryPoint, task: str) -> Factory:
    try:
        factory: Factory = one.load()
    except (ImportError, AttributeError) as error:
        raise TaskError(f"task {task!r}: the entry point {one.name} = {one.value} does not load: {error}") from error
    return factory


def _imported(task: str, module: str, attribute: str) -> Factory:
    try:
        found = imported(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            raise TaskError(
                f"there is no task {task!r} and no module {error.name!r} to import (is it in this folder, or its folder on PYTHONPATH; of "
                "another package, `uv run --with PACKAGE apps/...`?); "
                f"{_advice(task)}"
            ) from error
        raise TaskError(f"task {task!r}: {module} needs the module {error.name!r}, which is not installed") from error
    factory: Factory | None = getattr(found, attribute, None)
    if not callable(factory):
        raise TaskError(f"task {task!r}: the module {module} has no callable {attribute!r}")
    return factory


def _advice(task: str) -> str:
    names = tasks() + [f"gym:{id}" for id in gymnasium.registry]
    close = difflib.get_close_matches(task, names, 3, 0.6)
    # "pong", "boxing" or "CartPole-v1": the name without its suite
    close += [one for one in names if task and one.endswith((f"_{task}", f":{task}")) and one not in close]
    if close:
        return f"close: {', '.join(close[:4])}"
    return (
        "tasks are atari100k_<game>, dmc_<domain>_<task>, memory_maze_<size>, bsuite_<experiment>/<id>, "
        f"popgym_<name>, smax:<scenario>, smac:<map>, smacv2:<race>_<n>_vs_<m>, meltingpot:<substrate>, {', '.join(_TOYS)}, "
        "gym:<id>, zoo:<module> and <module>:<factory>"
    )
