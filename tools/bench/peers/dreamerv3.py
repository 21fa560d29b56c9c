"""The official DreamerV3 (github.com/danijar/dreamerv3), in JAX, on one CPU.

Tried at its commit e3f0224 with jax 0.4.33 (which it pins; 0.10.2 is too new for it), numpy 1.26, elements 3.22, ninjax 3.6,
chex, optax, einops, portal, granular, ruamel.yaml and its other requirements, without CUDA. It runs as it stands, in float32 and with what it compiles compiled, on random rows that are handed out again at every
update; its replay context of one step, whose latents are zeros here, is left as it is. No profiler, no report. The
process keeps to one core, for XLA takes as many threads as it sees.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers import Opponent, rows

NUMBERS = {"batch": 4, "length": 64, "horizon": 15, "actions": 6, "size": "size12m"}


def opponent(checkout: Path, *, batch: int, length: int, horizon: int, actions: int, size: str) -> Opponent:
    """Its agent."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before JAX counts them
    jax, elements, agents = (import_module(name) for name in ("jax", "elements", "dreamerv3.agent"))
    presets = import_module("ruamel.yaml").YAML(typ="safe").load((checkout / "dreamerv3" / "configs.yaml").read_text())
    config = elements.Config(presets["defaults"])
    for name in ("atari100k", *([size] if size else [])):
        config = config.update(presets[name])
    config = config.update({"agent.imag_length": horizon, "jax.platform": "cpu", "jax.compute_dtype": "float32"})
    space = elements.Space
    seen = {"image": space(np.uint8, (64, 64, 3)), "reward": space(np.float32)}
    seen |= {name: space(bool) for name in ("is_first", "is_last", "is_terminal")}
    kept = {name: config[name] for name in ("seed", "replay_context", "report_length", "replica", "replicas")}
    sizes: dict[str, Any] = {"batch_size": batch, "batch_length": length, "logdir": "/nowhere"}
    jaxes = dict(config.jax) | {"precompile": False, "profiler": False}  # it compiles at its first update instead
    agent = agents.Agent(
        seen, {"action": space(np.int32, (), 0, actions)}, elements.Config(**config.agent, **kept, **sizes, jax=jaxes)
    )
    steps = length + config.replay_context
    made = rows(batch, steps, actions)
    data = {name: np.zeros((batch, steps, *one.shape), one.dtype) for name, one in agent.spaces.items()}
    data |= {"image": made["image"], "reward": made["reward"], "action": made["action"].argmax(-1).astype(np.int32)}
    data |= {f"is_{name}": made[name] for name in ("first", "last", "terminal")}
    data = jax.device_put(data, agent.train_sharded)
    carry = [agent.init_train(batch)]

    def update() -> None:
        seed = agent._seeds(int(agent.n_updates), agent.train_mirrored)  # noqa: SLF001 - what its stream adds
        carry[0], _, _ = agent.train(carry[0], {**data, "seed": seed})
        jax.block_until_ready(agent.params)

    trained = (value.size for name, value in agent.params.items() if not name.startswith(("slowval", "opt", "retnorm")))
    parameters = sum(int(n) for n in trained)
    return Opponent(
        f"dreamerv3 (JAX) {size} {batch}x{length}", update, {"parameters": parameters, "jax": jax.__version__}
    )
