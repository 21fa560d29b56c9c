"""STORM (github.com/weipu-zhang/STORM).

One update is what its train.py does after each action: an update of the world model on rows of 64, imagination from
1,024 contexts, an update of policy and critic in what was imagined. The numbers are those of its config_files/STORM.yaml.
Tried at its commit 1c50658 with torch 2.15.0, einops 0.8.2, yacs 0.1.8, tensorboardX 2.6.5 (it pins none). It runs as it
stands, with three things taken out that it does not need on one CPU thread: "cuda" as the name of every device, bfloat16
autocast with its gradient scaling, and its replay buffer, in whose place stand two random batches that are handed out
again at every update. It writes no log.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from bench.calls import Calls
from bench.peers import Opponent, rows

NUMBERS = {"batch": 16, "length": 64, "dreams": 1024, "context": 8, "horizon": 16, "actions": 6}
WIDTH, GAMMA, LAMBDA, ENTROPY = 512, 0.985, 0.95, 3e-4


def batch_of(count: int, length: int, actions: int, seed: int) -> list[torch.Tensor]:
    """Random frames (count, length, 3, 64, 64) in [0, 1], actions, rewards and ends (count, length): an end in 200 steps."""
    made = {name: torch.from_numpy(one) for name, one in rows(count, length, actions, ends=0.005, seed=seed).items()}
    action = made["action"].argmax(-1).float()
    return [made["image"].permute(0, 1, 4, 2, 3).contiguous() / 255, action, made["reward"], made["last"].float()]


def without_cuda() -> None:
    """Tensors that are asked for on a GPU are made on the CPU."""
    zeros = torch.zeros

    def here(*size: Any, **options: Any) -> torch.Tensor:
        if options.get("device") == "cuda":
            del options["device"]
        return zeros(*size, **options)

    torch.zeros = here
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]


def opponent(
    checkout: Path, *, batch: int, length: int, dreams: int, context: int, horizon: int, actions: int
) -> Opponent:
    """Its world model and agent."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    without_cuda()

    world = import_module("sub_models.world_models").WorldModel(3, actions, 64, WIDTH, 2, 8)
    agent = import_module("agents").ActorCriticAgent(32 * 32 + WIDTH, 2, WIDTH, actions, GAMMA, LAMBDA, ENTROPY)
    for part in (world, agent):
        part.use_amp, part.tensor_dtype = False, torch.float32
        part.scaler = torch.amp.GradScaler("cpu", enabled=False)
    long, contexts = batch_of(batch, length, actions, 0), batch_of(dreams, context, actions, 1)
    imagined = {"imagine_batch_size": dreams, "imagine_batch_length": horizon, "log_video": False, "logger": None}

    def update() -> None:
        world.update(*long)
        world.eval()
        agent.eval()
        with torch.no_grad():
            latent, action, reward, end = world.imagine_data(agent, *contexts[:2], **imagined)
        agent.update(latent, action, None, None, reward, end)

    with Calls() as calls:
        update()
    slow = sum(p.numel() for p in agent.slow_critic.parameters())
    parameters = sum(p.numel() for part in (world, agent) for p in part.parameters()) - slow
    about = {"parameters": parameters, "torch": torch.__version__}
    counted = {"aten_calls": calls.computing, "aten_views": calls.other}
    return Opponent(f"STORM {batch}x{length} {dreams}x{horizon}", update, about | counted)
