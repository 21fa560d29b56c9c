"""A checkout of r2dreamer (github.com/NM512/r2dreamer) as an opponent for `bench.py ... --against`.

python tools/bench_peers/r2dreamer.py CHECKOUT [--batch 4] [--length 64] [--size size12M] [--device cuda]

Tried at its commit 546e4fa with torch 2.15.0, torchrl 0.14.1, tensordict 0.15.3, hydra-core 1.3.8 (it pins torch 2.8.0,
torchrl 0.9.2, tensordict 0.9.1). It runs as it stands, with four things taken out that it does not need on one CPU
thread: float16 autocast, gradient scaling, torch.compile, and its replay buffer, in whose place stands one random batch
that is handed out again at every update. `--loss dreamer` is the loss with a decoder, ours; its own default has none.
"""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import sys
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from bench_turns import serve


def batch(rows: int, length: int, actions: int) -> dict[str, torch.Tensor]:
    """Random steps (rows, length, ...): an episode in 100 steps."""
    rng = np.random.default_rng(0)
    last = rng.random((rows, length, 1)) < 0.01
    first = np.concatenate([np.zeros((rows, 1, 1), bool), last[:, :-1]], 1)
    return {
        "image": torch.from_numpy(rng.integers(0, 256, (rows, length, 64, 64, 3), dtype=np.uint8)),
        "action": torch.from_numpy(np.eye(actions, dtype=np.float32)[rng.integers(actions, size=(rows, length))]),
        "reward": torch.from_numpy(rng.standard_normal((rows, length, 1)).astype(np.float32)),
        "is_first": torch.from_numpy(first),
        "is_last": torch.from_numpy(last),
        "is_terminal": torch.from_numpy(last & (rng.random(last.shape) < 0.5)),
    }


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("checkout", type=pathlib.Path)
    ap.add_argument("--batch", type=int, default=4)
    ap.add_argument("--length", type=int, default=64)
    ap.add_argument("--horizon", type=int, default=15)
    ap.add_argument("--actions", type=int, default=6)
    ap.add_argument("--size", default="size12M")
    ap.add_argument("--loss", default="dreamer")
    ap.add_argument("--device", default="cpu", help="cuda: with its float16 autocast and gradient scaling; never tried")
    ap.add_argument("--warmup", type=int, default=1)
    args = ap.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sys.path.insert(0, str(args.checkout.resolve()))

    import dreamer
    from hydra import compose, initialize_config_dir
    from tensordict import TensorDict

    cuda = args.device != "cpu"
    if not cuda:
        dreamer.autocast = lambda **_: contextlib.nullcontext()  # type: ignore[attr-defined]
        dreamer.GradScaler = lambda: torch.amp.GradScaler("cpu", enabled=False)  # type: ignore[attr-defined]
    overrides = ["env=atari100k", f"model={args.size}", f"device={args.device}", "model.compile=False"]
    overrides += [f"model.rep_loss={args.loss}", f"model.imag_horizon={args.horizon}"]
    with initialize_config_dir(str((args.checkout / "configs").resolve()), version_base=None):
        config = compose("configs", overrides)
    seen = SimpleNamespace(spaces={"image": SimpleNamespace(shape=(64, 64, 3))})
    agent = dreamer.Dreamer(config.model, seen, SimpleNamespace(n=args.actions, shape=(args.actions,), discrete=True))
    data = TensorDict(batch(args.batch, args.length, args.actions), (args.batch, args.length)).to(args.device)
    stoch, deter = agent.rssm.initial(args.batch)

    class Replay:
        def sample(self) -> Any:
            return data.clone(recurse=False), None, (stoch, deter)  # its update writes into the batch

        def update(self, *told: Any) -> None: ...

    parameters = sum(p.numel() for p in agent._named_params.values())  # noqa: SLF001 - what its optimiser holds
    serve(
        f"r2dreamer {args.loss} {args.size} {args.batch}x{args.length}",
        lambda: (agent.update(Replay()), torch.cuda.synchronize() if cuda else None),
        warmup=args.warmup,
        parameters=parameters,
        torch=torch.__version__,
    )


if __name__ == "__main__":
    main()
