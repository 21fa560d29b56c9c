"""Recordings of the suite recall -> what its probe finds in states that are known: whether it can succeed, and can fail.

The probe is the microscope's (`wm_run.microscope.measured.fitted`, `probed`), fitted to the same rows and tested on the same.
Its features are, instead of a world model's state:
    fact      the fact itself: the probe must find it always.
    context   what a perfect memory of the context's records knows of it: the most that recall can be worth.
    episode   the same of the records of this episode alone: what is to be had without recall over its ends.
    record    the newest record alone, which must not hold the fact: chance, and what rows to fit and rows to test share.
    ARM, untrained    the states of the suite's model with the weights that its run begins with: chance, for that arm.
Sizes: B rows, T = C + H records, F features, K values of the fact.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import papers
import six_models
import torch
from torch import Tensor
from wm_suite.suites import Cell

DOORS, CUES = 4, 8  # of the suite's toy:doors
ARMS = 4  # of toy:cue_maze


def controls(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Of every task of these runs: scores by horizon of every control, and how many rows they were tested on."""
    found = []
    for task in dict.fromkeys(cell.task for cell in cells):
        here = [cell for cell in cells if cell.task == task and cell.seed == 0]
        rows = six_models.looked_at(six_models.ROOT / str(here[0].options["data"]), task)
        name, fact = next(iter(rows.told.items()))
        scores = {kind: probed(rows, fact, states) for kind, states in known(task, rows.steps, fact).items()}
        for cell in here:
            scores[f"{cell.arm}, untrained"] = untrained(cell, rows, name)
        tested = len(rows.halves()[1])
        found.append({"task": task, "name": name, "tested": tested, "scores": scores})
    return found


def known(task: str, steps: Mapping[str, Tensor], hidden: Tensor) -> dict[str, Tensor]:
    """States (B, T, F) of the controls that need no model."""
    observed = steps["vector"].float()
    cue, fact = shown(task, observed)
    never = torch.zeros_like(steps["first"])
    return {
        "fact": hidden.float(),
        "context": remembered(cue, fact, never),
        "episode": remembered(cue, fact, steps["first"]),
        "record": observed.flatten(2),
    }


def shown(task: str, observed: Tensor) -> tuple[Tensor, Tensor]:
    """What a record (B, T, F) shows of the fact, (B, T, K), zeros where nothing; and under which cue (B, T, N) it holds.

    >>> doors = torch.zeros(1, 1, 12)
    >>> doors[..., [2, 8 + 3]] = 1  # cue 2, and door 3 is open
    >>> [one.argmax().item() for one in shown("toy:doors", doors)]
    [2, 3]
    """
    if task == "toy:doors":
        return observed[..., :CUES], observed[..., CUES : CUES + DOORS]
    cells = observed.shape[-1] - 2 * ARMS - 1  # then the cue, the lamp and whether it is the question
    always = torch.ones(*observed.shape[:2], 1)
    return always, observed[..., cells : cells + ARMS]


def remembered(cue: Tensor, fact: Tensor, forget: Tensor) -> Tensor:
    """cue (B, T, N), fact (B, T, K) -> the fact last shown under the cue of each record, zeros where none was (B, T, K).

    forget (B, T): where everything before is forgotten.

    >>> cue, fact = torch.eye(2)[torch.tensor([[0, 1, 0]])], torch.tensor([[[0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]])
    >>> remembered(cue, fact, torch.zeros(1, 3, dtype=torch.bool))[0].tolist()
    [[0.0, 1.0], [0.0, 0.0], [0.0, 1.0]]
    """
    rows, steps, cues = cue.shape
    held, found = torch.zeros(rows, cues, fact.shape[-1]), []
    for t in range(steps):
        held = held * ~forget[:, t, None, None]
        now = (fact[:, t].sum(-1) > 0)[:, None, None] & (cue[:, t] > 0)[..., None]
        held = torch.where(now, fact[:, t, None], held)
        found.append((held * cue[:, t, :, None]).sum(1))
    return torch.stack(found, 1)


def probed(rows: Any, fact: Tensor, states: Tensor) -> list[float | None]:
    """By horizon, of states (B, T, F); in the dream a known state stays what it is at the end of the context."""
    from wm_run.microscope import measured

    ahead = rows.length - rows.context
    kept = states[:, rows.context - 1 : rows.context].expand(-1, ahead, -1)
    found: Any = SimpleNamespace(features=states, imagined=kept)
    (fit, test), fact = rows.halves(), fact.flatten(2)
    one = measured.fitted(found, fact, fit, rows.context)
    assert one is not None, "the fact never changes in these rows"
    scores: list[float | None] = measured.probed(one, found, fact, fit, test, rows.valid, rows.context)["dream"]
    return scores


def untrained(cell: Cell, rows: Any, name: str) -> list[float | None]:
    """By horizon, of the model that this run begins with."""
    from wm_run.loading import build, played, runtime
    from wm_run.microscope import measured
    from wm_run.microscope.passing import folded, look
    from wm_run.recording import Recording

    app = importlib.import_module(f"{cell.app}.cli").APP
    config = runtime(dataclasses.replace(papers.config_of(cell), task=cell.task, seed=cell.seed, device="cpu"))
    agent: Any = build(app, config, played(app, config, 1, Recording.open(Path(six_models.ROOT) / config.data)))
    steps, facts = folded(agent, rows)
    found = look(agent, steps, rows.context, sees=rows.context, seed=0)
    fit, test = rows.halves()
    one = measured.fitted(found, facts[name].flatten(2), fit, rows.context)
    assert one is not None, "the fact never changes in these rows"
    fact = facts[name].flatten(2)
    scores: list[float | None] = measured.probed(one, found, fact, fit, test, found.valid, rows.context)["dream"]
    return scores
