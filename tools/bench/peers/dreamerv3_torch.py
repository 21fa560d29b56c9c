"""dreamerv3-torch (github.com/NM512/dreamerv3-torch).

Tried at its commit 6ef8646 with torch 2.15.0 and ruamel.yaml 0.19. It runs as it stands on its preset atari100k: its own
nets, which are not DreamerV3's of 2025 (a dense GRU of 512, 32 latents of 32 classes, 4x4 convolutions of stride 2,
units 512; 18 million parameters), three losses with an Adam each, no replay value loss. torch.compile is off, and a
random batch stands for its dataset.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from bench.peers import Opponent, rows

NUMBERS = {"batch": 4, "length": 64, "horizon": 15, "actions": 6}


def opponent(checkout: Path, *, batch: int, length: int, horizon: int, actions: int) -> Opponent:
    """Its world model and behaviour."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    models = import_module("models")
    presets = import_module("ruamel.yaml").YAML(typ="safe").load((checkout / "configs.yaml").read_text())
    fields: dict[str, Any] = presets["defaults"]
    for name, value in presets["atari100k"].items():
        fields[name] = fields[name] | value if isinstance(value, dict) else value
    fields |= {"device": "cpu", "num_actions": actions, "imag_horizon": horizon, "compile": False}
    config = SimpleNamespace(**{name: number(value) for name, value in fields.items()})
    seen = SimpleNamespace(spaces={"image": SimpleNamespace(shape=(64, 64, 3))})
    world = models.WorldModel(seen, None, 0, config)
    behaviour = models.ImagBehavior(config, world)
    nets = torch.nn.ModuleList([world, behaviour.actor, behaviour.value])
    parameters = sum(p.numel() for p in nets.parameters())
    for net in (world, behaviour):
        net.requires_grad_(requires_grad=False)
    made = rows(batch, length, actions)
    made["first"][:, 0] = True  # its dataset starts every row so
    data = {name: made[name] for name in ("image", "action", "reward")}
    data |= {"discount": np.ones((batch, length), np.float32)}
    data |= {f"is_{name}": made[name] for name in ("first", "terminal")}

    def update() -> None:
        start, _, _ = world._train(dict(data))  # noqa: SLF001 - its only door
        behaviour._train(start, lambda f, s, a: world.heads["reward"](world.dynamics.get_feat(s)).mode())  # noqa: SLF001

    about = {"parameters": parameters, "torch": torch.__version__}
    return Opponent(f"dreamerv3-torch {batch}x{length}", update, about)


def number(value: Any) -> Any:
    """Numbers that YAML took for words: 1e-4."""
    if isinstance(value, dict):
        return {key: number(item) for key, item in value.items()}
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
