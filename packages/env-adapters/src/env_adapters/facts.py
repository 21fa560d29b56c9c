"""What an environment tells us beyond gymnasium's interface, looked up through its wrappers.

`protocol` (what a score means; `deterministic` False in it: seeds and actions do not lead to the same records), `repeat`
(environment steps per agent step), `signals` (names of booleans in `info` that join the step dictionary), `cheap` (not
worth a process), `apart` (lives in worker processes alone, which begin with these environment variables), `sizes_kept`
(names of pictures that are not resized), `told` (name -> a float32 vector of the state that no observation shows, for
probes), `reseed(seed)` (draw anew what outlives episodes), and on the outermost layer
`snapshot() -> dict` and `restore(dict)`; of several agents `agents`, `noop`, `state_size`, `agent_signals`, and of anyone
`outcomes` (see `team.TeamEnv`). Such names are common, so they are read only of a class that says
`env_adapters = True`; of any other they are its own. An environment of anyone's says by
`metadata["restorable"] = False` that its actions must not be executed again when a run is resumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium

from env_adapters.step import Environment

FACTS = ("protocol", "repeat", "signals", "cheap", "apart", "sizes_kept", "told", "reseed", "snapshot", "restore")
TEAM = ("agents", "noop", "state_size", "agent_signals", "outcomes")


def fact(env: Environment, name: str, default: Any) -> Any:
    """An attribute of an environment or of anything it wraps, of those whose class says `env_adapters = True`.

    >>> fact(gymnasium.make("CartPole-v1"), "repeat", 1)
    1
    """
    for layer in _layers(env):
        if offers(layer) and hasattr(layer, name):
            return getattr(layer, name)
    return default


def repeats(protocol: Mapping[str, Any]) -> bool:
    """Whether seeds and actions lead to the same records: unless the protocol says `deterministic` False.

    >>> repeats({"name": "chess"}), repeats({"name": "Melting Pot", "deterministic": False})
    (True, False)
    """
    return protocol.get("deterministic", True) is not False


def unread(env: Environment) -> str:
    """A sentence where an environment has attributes of these names that are its own, else nothing."""
    strange = [layer for layer in _layers(env) if not offers(layer)]
    names = [name for name in (*FACTS, *TEAM) if any(hasattr(layer, name) for layer in strange)]
    if not names:
        return ""
    return (
        f"{type(env.unwrapped).__name__}: {', '.join(names)} {'is' if len(names) == 1 else 'are'} taken for its own; if "
        "meant for env_adapters, its class says `env_adapters = True`"
    )


def offers(layer: Environment) -> bool:
    """Whether the facts of this layer are meant for us."""
    return getattr(type(layer), "env_adapters", False) is True


def _layers(env: Environment) -> Iterator[Environment]:
    yield env
    while isinstance(env, gymnasium.Wrapper):
        env = env.env
        yield env
