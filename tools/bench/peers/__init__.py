"""Checkouts of other codes as opponents: `update ... --against "PYTHON tools/bench peer NAME CHECKOUT [--batch 4 ...]"`.

r2dreamer        github.com/NM512/r2dreamer        dreamerv3_torch  github.com/NM512/dreamerv3-torch
storm            github.com/weipu-zhang/STORM      dreamerv3        github.com/danijar/dreamerv3, the official one, in JAX

PYTHON is one that has what they need; of ours they need torch and numpy alone (dreamerv3: numpy). Each file says at which
commit and with which versions it was tried, and what of it runs otherwise than its authors have it.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.command import Command, add
from bench.rows import Row
from bench.turns import TurnError, serve

NAMES = ("r2dreamer", "dreamerv3_torch", "storm", "dreamerv3")


class Opponent(NamedTuple):
    """A name that tells the sizes, one update, and what else is told of it."""

    name: str
    update: Callable[[], object]
    about: dict[str, Any]


def rows(batch: int, length: int, actions: int, *, ends: float = 0.01, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Random steps (batch, length, ...): frames, one-hot actions, rewards, and an end in 100 steps, terminal in half."""
    rng, shape = np.random.default_rng(seed), (batch, length)
    last = rng.random(shape) < ends
    return {
        "image": rng.integers(0, 256, (*shape, 64, 64, 3), dtype=np.uint8),
        "action": np.eye(actions, dtype=np.float32)[rng.integers(actions, size=shape)],
        "reward": rng.standard_normal(shape).astype(np.float32),
        "first": np.concatenate([np.zeros((batch, 1), bool), last[:, :-1]], 1),
        "last": last,
        "terminal": last & (rng.random(shape) < 0.5),
    }


def peer(args: argparse.Namespace, words: list[str]) -> Iterator[Row]:
    """Be a COMMAND."""
    module = importlib.import_module(f"bench.peers.{args.name}")
    parser = argparse.ArgumentParser(prog=f"bench peer {args.name}", description=module.__doc__, allow_abbrev=False)
    add(parser, **module.NUMBERS)
    numbers = vars(parser.parse_args(words))
    if not args.checkout.is_dir():
        parser.error(f"there is no checkout {args.checkout}")
    sys.path.insert(0, str(args.checkout.resolve()))
    try:
        opponent: Opponent = module.opponent(args.checkout.resolve(), **numbers)
    except ModuleNotFoundError as error:
        raise TurnError(
            f"{args.name} needs {error.name}, which {sys.executable} lacks: install it there, or start this with a Python "
            "that has it"
        ) from None
    serve(opponent.name, opponent.update, warmup=args.warmup, **opponent.about)
    yield from ()


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("checkout", type=Path)


COMMANDS = {"peer": Command(peer, {}, options, app=False, others=True)}
