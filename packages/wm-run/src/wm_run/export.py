"""`export LOGDIR`: a trained agent -> files that act and dream without this code, and a card that says how to call them.

<out>/{observe,policy,dream}.{onnx,pt2}, carry.npz (the memory before the first step), card.json. Nothing is written that has
not been compared with the agent, from the files, over an episode.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from wm_core.errors import UserError

from wm_run import durable, evaluation, spaces
from wm_run.compared import DECODED, LIMIT, Compared, Comparison
from wm_run.converted import EXTRA, check_installed, convert, onnx_runner, torch_runner
from wm_run.loading import Loaded, restore, with_world
from wm_run.noise import MODE
from wm_run.programs import Program, programs
from wm_run.results import plain_json, write_json
from wm_run.scoring import FRESH, fresh
from wm_run.standins import exportable

if TYPE_CHECKING:
    from wm_run.app import App
    from wm_run.cli import Command
    from wm_run.options import Export

FORMAT = 1  # of the card and what it names
KINDS = {"onnx": onnx_runner, "torch": torch_runner}
FILES = {"onnx": "onnx", "torch": "pt2"}  # their endings


def export(app: App, command: Command) -> int:
    """Export, compare, say what was compared."""
    options: Export = command.options
    check_installed()
    if options.compare < 1:
        raise UserError(f"--compare must be at least 1, not {options.compare}")
    evaluation.changed(command.saved, command.config, "export", app.acting)
    logdir = Path(options.logdir)
    out = Path(options.out) if options.out else logdir / "export"
    if out.exists() and not (out / "card.json").is_file():
        raise UserError(f"{out} is there and no export of ours: name another folder with --out")
    config = dataclasses.replace(command.config, device="cpu", precision="fp32", capture="eager", devices=1)
    loaded = restore(app, logdir, config)
    card, compared = written(loaded, out, options.compare)
    print(sentence(compared))
    print(f"export      {out} ({', '.join(sorted(path.name for path in out.iterdir()))})")
    print(
        f"to act from it: docs/export.md; it needs {', '.join(card['programs'])} in their .onnx, numpy and onnxruntime"
    )
    return 0


def written(loaded: Loaded, out: Path, steps: int) -> tuple[dict[str, Any], Compared]:
    """The files of an agent in a folder that is there when all of it is; gives the card. Raises UserError where the agent
    cannot be exported, or where what was exported is another one."""
    app, task = loaded.app, loaded.config.task
    if loaded.team is not None:
        raise UserError(
            f"`export` takes agents that act alone, and {task} has a team of {loaded.team.agents}: their step is not exported"
        )
    agent = with_world(app, loaded.agent, "there is no step of one to export")
    seen = {
        key: torch.from_numpy(np.zeros((1, *(one.shape or ())), one.dtype))
        for key, one in loaded.observation_space.spaces.items()
    }
    made = programs(agent, seen, loaded.action_size)
    draft = out.with_name(f".{out.name}.draft")
    durable.erase(draft)
    try:
        draft.mkdir(parents=True)
        for program in made:
            convert(program, draft)
        runners = {kind: {one.name: run(draft, one) for one in made} for kind, run in KINDS.items()}
        with closing(fresh(app, loaded.config, 1)) as envs:
            compared = Comparison(agent, made, runners).play(envs, loaded.config.seed + FRESH, steps)
        carry = {name: value.numpy() for name, value in made[0].inputs.items() if name.startswith("carry")}
        np.savez_compressed(draft / "carry.npz", **carry)  # type: ignore[arg-type]
        dynamics = exportable(agent.world).dynamics
        left = dynamics.left(dynamics.initial(1))  # of the stand-in, which knows how much a full window leaves
        card = described(loaded, made, compared, left)
        write_json(draft / "card.json", card)
        if out.exists():
            durable.erase(out)
        draft.rename(out)
    finally:
        durable.erase(draft)
    return card, compared


def sentence(found: Compared) -> str:
    """What was compared, for people.

    >>> print(sentence(Compared(12, True, 2, 30, 0, {"onnx": 2e-7, "torch": 0.0}, {"onnx": 3e-6, "torch": 0.0})))
    compared with the agent over an episode (12 steps) and 2 dreams (30 steps): largest difference 2e-07 in onnx, 0e+00 in torch (the limit is 1e-05); of what is decoded 3e-06, 0e+00 (0.0001)
    """
    what = "an episode" if found.ended else "the beginning of an episode"
    dreams = f"{found.dreams} dream{'s' * (found.dreams != 1)} ({found.dreamt} steps)"
    apart = ", ".join(f"{value:.0e} in {kind}" for kind, value in found.largest.items())
    decoded = ", ".join(f"{value:.0e}" for value in found.decoded.values())
    return (
        f"compared with the agent over {what} ({found.steps} steps) and {dreams}: largest difference {apart} (the limit is "
        f"{LIMIT:g}); of what is decoded {decoded} ({DECODED:g})"
    )


def described(loaded: Loaded, made: list[Program], compared: Compared, left: float) -> dict[str, Any]:
    """The card: what somebody without this code needs to call the files, and what they are of."""
    sources = loaded.sources
    seen = {
        key: {"path": list(sources[key][0] if key in sources else [key]), "resized": key in loaded.views}
        | spaces.described(one)
        for key, one in loaded.observation_space.spaces.items()
    }
    card = {
        "format": FORMAT,
        "app": loaded.app.name,
        "version": loaded.app.version,
        "task": loaded.config.task,
        "step": loaded.step,
        "protocol": loaded.protocol,
        "precision": "float32",
        "made_with": {name: importlib.metadata.version(name) for name in ("torch", *EXTRA, "wm-run")},
        "observation": seen,
        "action": {"size": loaded.action_size, "space": spaces.described(loaded.action_space)},
        "noise": {kind: {"mode": value} for kind, value in MODE.items()},
        "carry": "carry.npz",
        "dream_steps": None if left == float("inf") else int(left),
        "programs": {one.name: _program(one) for one in made},
        "compared": dataclasses.asdict(compared) | {"limit": LIMIT, "limit_decoded": DECODED},
    }
    return dict(plain_json(card))


def _program(program: Program) -> dict[str, Any]:
    """Files, inputs and outputs in their order."""
    with torch.no_grad():
        outputs = program.module(*program.inputs.values())
    inputs = [
        _port(name, value) | ({"noise": program.noise[name]} if name in program.noise else {})
        for name, value in program.inputs.items()
    ]
    return {kind: f"{program.name}.{ending}" for kind, ending in FILES.items()} | {
        "inputs": inputs,
        "outputs": [_port(name, value) for name, value in zip(program.outputs, outputs, strict=True)],
    }


def _port(name: str, value: torch.Tensor) -> dict[str, Any]:
    return {"name": name, "shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
