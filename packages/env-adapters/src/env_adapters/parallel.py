"""A task of several agents -> PettingZoo's form of it, for whoever's learner wants that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from env_adapters.errors import TaskError
from env_adapters.make import Factory

if TYPE_CHECKING:
    from env_adapters.zoo_parallel import Parallel


def parallel_env(task: str | Factory, **options: Any) -> Parallel:
    """A `pettingzoo.ParallelEnv` of any task of several agents, with what `make_vec` takes (see `zoo_parallel.Parallel`).

    TaskError for a task of a single agent, and without the extra `zoo`.

    >>> env = parallel_env("toy:whisper")
    >>> seen, info = env.reset(seed=0)
    >>> list(seen), seen["agent_0"]["observation"].shape, seen["agent_0"]["action_mask"].tolist()
    (['agent_0', 'agent_1', 'agent_2'], (9,), [1, 1, 1, 1])
    """
    try:
        from env_adapters.zoo_parallel import Parallel
    except ModuleNotFoundError as error:
        raise TaskError("a PettingZoo environment needs pettingzoo; install `env-adapters[zoo]`") from error
    return Parallel(task, **options)
