"""A checkout of STORM (github.com/weipu-zhang/STORM) as an opponent for `bench.py ... --against`.

python tools/bench_peers/storm.py CHECKOUT [--batch 16] [--length 64] [--dreams 1024] [--context 8] [--horizon 16]

One update is what its train.py does after each action: an update of the world model on rows of 64, imagination from
1,024 contexts, an update of policy and critic in what was imagined. The numbers are those of its config_files/STORM.yaml.
Tried at its commit 1c50658 with torch 2.15.0, einops 0.8.2, yacs 0.1.8, tensorboardX 2.6.5 (it pins none). It runs as it
stands, with three things taken out that it does not need on one CPU thread: "cuda" as the name of every device, bfloat16
autocast with its gradient scaling, and its replay buffer, in whose place stand two random batches that are handed out
again at every update. It writes no log.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from bench_calls import Calls
from bench_turns import serve

WIDTH, GAMMA, LAMBDA, ENTROPY = 512, 0.985, 0.95, 3e-4


def batch(rows: int, length: int, actions: int, seed: int) -> list[torch.Tensor]:
    """Random frames (rows, length, 3, 64, 64) in [0, 1], actions, rewards and ends (rows, length): an end in 200 steps."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (rows, length, 3, 64, 64), dtype=np.uint8)
    action = rng.integers(actions, size=(rows, length)).astype(np.float32)
    reward = rng.standard_normal((rows, length)).astype(np.float32)
    end = (rng.random((rows, length)) < 0.005).astype(np.float32)
    return [torch.from_numpy(frames) / 255, *(torch.from_numpy(one) for one in (action, reward, end))]


def without_cuda() -> None:
    """Tensors that are asked for on a GPU are made on the CPU."""
    zeros = torch.zeros

    def here(*size: Any, **options: Any) -> torch.Tensor:
        if options.get("device") == "cuda":
            del options["device"]
        return zeros(*size, **options)

    torch.zeros = here
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("checkout", type=pathlib.Path)
    ap.add_argument("--batch", type=int, default=16)
    ap.add_argument("--length", type=int, default=64)
    ap.add_argument("--dreams", type=int, default=1024)
    ap.add_argument("--context", type=int, default=8)
    ap.add_argument("--horizon", type=int, default=16)
    ap.add_argument("--actions", type=int, default=6)
    ap.add_argument("--warmup", type=int, default=1)
    args = ap.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sys.path.insert(0, str(args.checkout.resolve()))
    without_cuda()

    from agents import ActorCriticAgent
    from sub_models.world_models import WorldModel

    world = WorldModel(3, args.actions, 64, WIDTH, 2, 8)
    agent = ActorCriticAgent(32 * 32 + WIDTH, 2, WIDTH, args.actions, GAMMA, LAMBDA, ENTROPY)
    for part in (world, agent):
        part.use_amp, part.tensor_dtype = False, torch.float32
        part.scaler = torch.amp.GradScaler("cpu", enabled=False)
    rows = batch(args.batch, args.length, args.actions, 0)
    contexts = batch(args.dreams, args.context, args.actions, 1)

    def update() -> None:
        world.update(*rows)
        world.eval()
        agent.eval()
        with torch.no_grad():
            latent, action, reward, end = world.imagine_data(
                agent,
                contexts[0],
                contexts[1],
                imagine_batch_size=args.dreams,
                imagine_batch_length=args.horizon,
                log_video=False,
                logger=None,
            )
        agent.update(latent, action, None, None, reward, end)

    with Calls() as calls:
        update()
    slow = sum(p.numel() for p in agent.slow_critic.parameters())
    serve(
        f"STORM {args.batch}x{args.length} {args.dreams}x{args.horizon}",
        update,
        warmup=args.warmup,
        parameters=sum(p.numel() for part in (world, agent) for p in part.parameters()) - slow,
        aten_calls=calls.computing,
        aten_views=calls.other,
        torch=torch.__version__,
    )


if __name__ == "__main__":
    main()
