"""(run seed, environment index, episode index) -> the seed of one episode, and generators as plain text."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

_MASK = (1 << 64) - 1
_INSTANCE = 0x1D5  # keeps the seeds of instances apart from those of episodes


def mix(*words: int) -> int:
    """Scramble integers into one of 64 bits; the same words always give the same number (splitmix64, chained).

    >>> mix(1, 2) == mix(1, 2), mix(1, 2) == mix(2, 1)
    (True, False)
    """
    state = 0
    for word in words:
        state = ((state ^ word) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def episode_seed(run: int, env: int, episode: int) -> int:
    """Seed with which an episode is reset, 31 bits (what the Atari emulator takes).

    >>> 0 <= episode_seed(0, 1, 2) < 2**31
    True
    """
    return mix(run, env, episode) >> 33


def instance_seed(run: int, env: int, restarts: int = 0) -> int:
    """Seed of what outlives an environment's episodes (the hidden rule of doors), 62 bits."""
    return mix(run, env, _INSTANCE, restarts) >> 2


def write_rng(generator: np.random.Generator) -> str:
    """State of a generator as text; its 128-bit integers are no plain numbers to most file formats.

    >>> source, copy = np.random.default_rng(0), np.random.default_rng(1)
    >>> read_rng(copy, write_rng(source))
    >>> bool(source.integers(1000) == copy.integers(1000))
    True
    """
    return json.dumps(generator.bit_generator.state)


def read_rng(generator: np.random.Generator, text: str) -> None:
    """Set a generator to what `write_rng` gave."""
    generator.bit_generator.state = json.loads(text)


def write_random_state(generator: np.random.RandomState) -> dict[str, Any]:
    """State of one of numpy's old generators, on which dm_control and bsuite are built.

    >>> source, copy = np.random.RandomState(0), np.random.RandomState(1)
    >>> read_random_state(copy, write_random_state(source))
    >>> source.normal() == copy.normal()
    True
    """
    name, key, position, has_gauss, gauss = generator.get_state()
    assert name == "MT19937"
    return {"key": np.array(key), "position": int(position), "has_gauss": int(has_gauss), "gauss": float(gauss)}


def read_random_state(generator: np.random.RandomState, state: dict[str, Any]) -> None:
    """Set an old generator to what `write_random_state` gave."""
    key = np.array(state["key"], np.uint32)
    generator.set_state(("MT19937", key, int(state["position"]), int(state["has_gauss"]), float(state["gauss"])))
