"""r2dreamer (github.com/NM512/r2dreamer).

Tried at its commit 546e4fa with torch 2.15.0, torchrl 0.14.1, tensordict 0.15.3, hydra-core 1.3.8 (it pins torch 2.8.0,
torchrl 0.9.2, tensordict 0.9.1). It runs as it stands, with four things taken out that it does not need on one CPU
thread: float16 autocast, gradient scaling, torch.compile, and its replay buffer, in whose place stands one random batch
that is handed out again at every update. `--loss dreamer` is the loss with a decoder, ours; its own default has none.
`--device cuda` is with its float16 autocast and gradient scaling, and was never tried.
"""

from __future__ import annotations

import contextlib
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from bench.peers import Opponent, rows

NUMBERS = {"batch": 4, "length": 64, "horizon": 15, "actions": 6}
NUMBERS |= {"size": "size12M", "loss": "dreamer", "device": "cpu"}  # type: ignore[dict-item]


def opponent(
    checkout: Path, *, batch: int, length: int, horizon: int, actions: int, size: str, loss: str, device: str
) -> Opponent:
    """Its agent."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    needs: Any = map(import_module, ("dreamer", "hydra", "tensordict"))
    dreamer, hydra, tensordict = needs
    cuda = device != "cpu"
    if not cuda:
        dreamer.autocast = lambda **_: contextlib.nullcontext()
        dreamer.GradScaler = lambda: torch.amp.GradScaler("cpu", enabled=False)
    overrides = ["env=atari100k", f"model={size}", f"device={device}", "model.compile=False"]
    overrides += [f"model.rep_loss={loss}", f"model.imag_horizon={horizon}"]
    with hydra.initialize_config_dir(str(checkout / "configs"), version_base=None):
        config = hydra.compose("configs", overrides)
    seen = SimpleNamespace(spaces={"image": SimpleNamespace(shape=(64, 64, 3))})
    agent = dreamer.Dreamer(config.model, seen, SimpleNamespace(n=actions, shape=(actions,), discrete=True))
    made = {name: torch.from_numpy(value) for name, value in rows(batch, length, actions).items()}
    steps = {"image": made["image"], "action": made["action"], "reward": made["reward"][..., None]}
    steps |= {f"is_{name}": made[name][..., None] for name in ("first", "last", "terminal")}
    data = tensordict.TensorDict(steps, (batch, length)).to(device)
    stoch, deter = agent.rssm.initial(batch)

    class Replay:
        def sample(self) -> Any:
            return data.clone(recurse=False), None, (stoch, deter)  # its update writes into the batch

        def update(self, *latents: Any) -> None: ...

    def update() -> None:
        agent.update(Replay())
        if cuda:
            torch.cuda.synchronize()

    parameters = sum(p.numel() for p in agent._named_params.values())  # noqa: SLF001 - what its optimiser holds
    return Opponent(
        f"r2dreamer {loss} {size} {batch}x{length}",
        update,
        {"parameters": parameters, "torch": torch.__version__},
    )
