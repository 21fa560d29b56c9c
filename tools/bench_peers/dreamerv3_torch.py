"""A checkout of dreamerv3-torch (github.com/NM512/dreamerv3-torch) as an opponent for `bench.py ... --against`.

python tools/bench_peers/dreamerv3_torch.py CHECKOUT [--batch 4] [--length 64]

Tried at its commit 6ef8646 with torch 2.15.0 and ruamel.yaml 0.19. It runs as it stands on its preset atari100k: its own
nets, which are not DreamerV3's of 2025 (a dense GRU of 512, 32 latents of 32 classes, 4x4 convolutions of stride 2,
units 512; 18 million parameters), three losses with an Adam each, no replay value loss. torch.compile is off, and a
random batch stands for its dataset.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import warnings
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from bench_turns import serve


def batch(rows: int, length: int, actions: int) -> dict[str, Any]:
    """Random steps (rows, length, ...): an episode in 100 steps."""
    rng = np.random.default_rng(0)
    last = rng.random((rows, length)) < 0.01
    first = np.concatenate([np.zeros((rows, 1), bool), last[:, :-1]], 1)
    first[:, 0] = True  # its dataset starts every row so
    return {
        "image": rng.integers(0, 256, (rows, length, 64, 64, 3), dtype=np.uint8),
        "action": np.eye(actions, dtype=np.float32)[rng.integers(actions, size=(rows, length))],
        "reward": rng.standard_normal((rows, length)).astype(np.float32),
        "discount": np.ones((rows, length), np.float32),
        "is_first": first,
        "is_terminal": last & (rng.random(last.shape) < 0.5),
    }


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("checkout", type=pathlib.Path)
    ap.add_argument("--batch", type=int, default=4)
    ap.add_argument("--length", type=int, default=64)
    ap.add_argument("--horizon", type=int, default=15)
    ap.add_argument("--actions", type=int, default=6)
    ap.add_argument("--warmup", type=int, default=1)
    args = ap.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sys.path.insert(0, str(args.checkout.resolve()))

    import models
    from ruamel.yaml import YAML

    presets = YAML(typ="safe").load((args.checkout / "configs.yaml").read_text())
    fields: dict[str, Any] = presets["defaults"]
    for name, value in presets["atari100k"].items():
        fields[name] = fields[name] | value if isinstance(value, dict) else value
    fields |= {"device": "cpu", "num_actions": args.actions, "imag_horizon": args.horizon, "compile": False}
    numbers = {name: number(value) for name, value in fields.items()}
    config = SimpleNamespace(**numbers)
    seen = SimpleNamespace(spaces={"image": SimpleNamespace(shape=(64, 64, 3))})
    world = models.WorldModel(seen, None, 0, config)
    behaviour = models.ImagBehavior(config, world)
    nets = torch.nn.ModuleList([world, behaviour.actor, behaviour.value])
    parameters = sum(p.numel() for p in nets.parameters())
    for net in (world, behaviour):
        net.requires_grad_(requires_grad=False)
    data = batch(args.batch, args.length, args.actions)

    def update() -> None:
        start, _, _ = world._train(dict(data))  # noqa: SLF001 - its only door
        behaviour._train(start, lambda f, s, a: world.heads["reward"](world.dynamics.get_feat(s)).mode())  # noqa: SLF001

    name = f"dreamerv3-torch {args.batch}x{args.length}"
    serve(name, update, warmup=args.warmup, parameters=parameters, torch=torch.__version__)


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


if __name__ == "__main__":
    main()
