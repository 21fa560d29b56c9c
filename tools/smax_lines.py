"""Reference lines of SMAX: random legal actions, and JaxMARL's scripted policy on our side, in as many whole episodes.

`python tools/smax_lines.py 3m 2s3z [--episodes 128] [--seed 0]` writes a row of a Markdown table for each scenario. Every environment plays
the same number of episodes, so that short ones do not count more than long ones.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from env_adapters.smax import Smax
from env_adapters.smax_program import game
from env_adapters.team import choose
from numpy.typing import NDArray

ENVS = 32
Policy = Callable[[dict[str, NDArray[Any]]], NDArray[np.float32]]


def uniform(env: Smax, seed: int) -> Policy:
    """Every legal action alike."""
    rng = np.random.default_rng(seed)
    return lambda step: choose(env.action_spec, rng.random(step["action_mask"].shape), step["action_mask"])


def scripted(env: Smax, seed: int) -> Policy:
    """The policy that the enemy plays, from what our agents see; where it may not do what it wants, it stops."""
    import jax

    enemy: Any = importlib.import_module("jaxmarl.environments.smax.heuristic_enemy")
    options = {name: env.protocol[name] for name in ("see_enemy_actions", "walls_cause_death", "attack_mode")}
    own = vars(game(env.protocol["task"], **options))["_env"]
    one = enemy.create_heuristic_policy(own, 0, attack_mode=env.protocol["attack_mode"])
    rows = env.num_envs * env.agents
    begin = jax.tree.map(lambda leaf: jax.numpy.stack([leaf] * rows), enemy.get_heuristic_policy_initial_state())

    @jax.jit
    def act(key: Any, memory: Any, seen: Any, fresh: Any) -> Any:
        def renewed(new: Any, old: Any) -> Any:
            return jax.numpy.where(fresh.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        memory = jax.tree.map(renewed, begin, memory)
        return jax.vmap(one)(jax.random.split(key, rows), memory, seen)

    at = [jax.random.PRNGKey(seed), begin]

    def policy(step: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        at[0], now = jax.random.split(at[0])
        wanted, at[1] = act(now, at[1], step["vector"].reshape(rows, -1), np.repeat(step["first"], env.agents))
        scores = np.eye(env.action_spec.size)[np.asarray(wanted).reshape(env.num_envs, -1)]
        scores[..., env.noop] += 0.5
        return choose(env.action_spec, scores, step["action_mask"])

    return policy


def line(env: Smax, policy: Policy, episodes: int, seed: int) -> dict[str, float]:
    """Share of wins, mean return and length of the first `episodes` / n episodes of every environment."""
    step = env.reset(seed)
    left = np.full(env.num_envs, -(-episodes // env.num_envs))
    wins = score = actions = 0.0
    while left.any():
        step = env.step(policy(step))
        counts = left > 0
        wins += step["won"][counts].sum()
        score += env.score(step)[counts].sum()
        actions += (~step["first"])[counts].sum()
        left -= counts & step["last"]
    total = env.num_envs * -(-episodes // env.num_envs)
    return {"won": wins / total, "return": score / total, "length": actions / total}


def main(argv: Sequence[str] | None = None) -> None:
    """Play and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="+")
    parser.add_argument("--episodes", type=int, default=128, help=f"rounded up to a multiple of {ENVS} (default 128)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    print("| scenario | policy | won | return | length |\n|---|---|---|---|---|")
    for name in args.scenarios:
        with Smax(name, ENVS) as env:
            for label, policy in (("random", uniform), ("scripted", scripted)):
                found = line(env, policy(env, args.seed), args.episodes, args.seed)
                print(
                    f"| {name} | {label} | {found['won']:.0%} | {found['return']:.2f} | {found['length']:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
