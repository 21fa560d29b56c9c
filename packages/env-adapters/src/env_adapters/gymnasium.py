"""`gym:<id>`: any registered gymnasium environment."""

from __future__ import annotations

import difflib
import inspect
import re
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator

from env_adapters.errors import TaskError
from env_adapters.modules import imported
from env_adapters.plugins import asserted, register, run_with
from env_adapters.step import Environment
from env_adapters.wrappers import ActionRepeat, Resize


def make_gym(id: str, repeat: int = 1, size: int | None = None, **options: Any) -> Environment:
    """Environment `id`, its `options` (max_episode_steps, render_mode and its own) passed to `gymnasium.make`.

    `repeat` executes each action that often; `size` resizes images. What registers the id is imported where it is
    known (see `plugins`); an id may name that module itself, as in gymnasium ("my_module:MyEnv-v0"). TaskError for an unknown id, a missing dependency or an option it does not take.

    >>> make_gym("CartPole-v1", max_episode_steps=20).spec.max_episode_steps
    20
    """
    module, colon, _ = id.partition(":")
    try:
        if colon and module:
            imported(module)
        register(id)
        env: Environment = gymnasium.make(id, disable_env_checker=True, **options)
    except gymnasium.error.DependencyNotInstalled as error:
        extra = re.search(r"gymnasium\[[\w-]+\]", str(error))
        way = f": {run_with(extra[0])}" if extra else f" ({_line(error)}): `uv run --with PACKAGE apps/...` brings it"
        raise TaskError(f"gym:{id} needs a package that is missing{way}") from error
    except gymnasium.error.UnregisteredEnv as error:
        close = difflib.get_close_matches(id, list(gymnasium.registry), 3, 0.5)
        hint = f"; close: {', '.join('gym:' + one for one in close)}" if close else ""
        if "/" in id and ":" not in id:
            hint = (
                f"; if another package registers it, name its module, gym:<module>:{id}, and bring the package along, "
                "`uv run --with PACKAGE apps/...`"
            )
        raise TaskError(f"gymnasium has no environment {id!r}{hint}") from error
    except gymnasium.error.DeprecatedEnv as error:
        raise TaskError(f"gym:{id} is retired: {_line(error)}") from error
    except ModuleNotFoundError as error:
        raise TaskError(
            f"gym:{id} needs a module that is missing: {_line(error)}; the package that it is of comes with "
            "`uv run --with PACKAGE apps/...`"
        ) from error
    except AssertionError as error:
        if not (way := asserted(id)):
            raise
        raise TaskError(way) from error
    except TypeError as error:
        if not options:
            raise
        raise TaskError(
            f"gym:{id} does not take the options {', '.join(options)}: {_line(error)}; it has {', '.join(_known(id))}"
        ) from error
    if size is not None:
        env = Resize(env, size)
    return ActionRepeat(env, repeat) if repeat != 1 else env


def _known(id: str) -> list[str]:
    """The options of a registered environment, as far as its class names them."""
    spec = gymnasium.registry.get(id.rpartition(":")[2])
    made = getattr(spec, "entry_point", None)
    made = load_env_creator(made) if isinstance(made, str) else made
    named = inspect.signature(made).parameters.values() if callable(made) else ()
    own = [one.name for one in named if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    return list(dict.fromkeys(["repeat", "size", "max_episode_steps", *own]))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
