"""One run and rows -> every measure, as JSON.

Sizes: B rows, C context, H steps ahead.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from wm_core.agent import Agent
from wm_core.types import Batch, Index, Steps

from wm_run.microscope import probe
from wm_run.microscope.calibration import numbers, reliability
from wm_run.microscope.codes import codes
from wm_run.microscope.errors import by_horizon
from wm_run.microscope.lags import gradient, powers, shares
from wm_run.microscope.passing import Pass, cuts, folded, look, quiet, room, state_after
from wm_run.microscope.promised import Ahead, promised
from wm_run.microscope.recalled import recalled
from wm_run.microscope.returns import followed
from wm_run.microscope.rows import Rows

SHORT = 5  # steps ahead that the ablation of the past looks at


def measure(agent: Agent, rows: Rows, *, discount: float, seed: int) -> tuple[dict[str, Any], Pass]:
    """Everything the page shows of a run, and the pass it comes from. Equal for equal arguments on one machine."""
    steps, told = folded(agent, rows)
    sees = room(agent, rows.context, rows.length - rows.context)
    agents = len(steps["first"]) // len(rows.stream)
    found = look(agent, steps, rows.context, sees=sees, seed=seed, agents=agents)
    cpu = {key: steps[key] for key in ("reward", "first", "last")} | {"terminal": ends(agent, rows, steps)}
    cpu = {key: value[:, rows.context - sees :].cpu() for key, value in cpu.items()}
    valid, (fit, test) = found.valid, _halves(rows, agents)
    result: dict[str, Any] = {"sees": sees, "rows_at_horizon": valid.sum(0).tolist()}
    result["errors"] = {
        key: {name: by_horizon(each, valid) for name, each in of.items()} for key, of in found.errors.items()
    }
    result["latents"] = codes(found.post[:, 1:].flatten(0, 1), found.prior[:, 1:].flatten(0, 1))
    result |= heads(found, cpu, valid, sees, discount)
    probes = {}
    result["probes"] = {}
    for name, value in told.items():
        y = value[:, rows.context - sees :].flatten(2)
        one = fitted(found, y, fit, sees)
        if one is not None:
            probes[name] = one
            result["probes"][name] = probed(one, found, y, fit, test, valid, sees)
    result["recalled"] = None if found.recalled is None else recalled(*found.recalled)
    result["past"] = past(agent, steps, rows, sees, seed, valid, probes, told, fit, test)
    return result, found


def _halves(rows: Rows, agents: int) -> tuple[Tensor, Tensor]:
    """The two halves of rows, with all agents of a team: row b * N + i."""
    fit, test = ((half[:, None] * agents + torch.arange(agents)).flatten() for half in rows.halves())
    return fit, test


def ends(agent: Agent, rows: Rows, steps: Steps) -> Tensor:
    """Where its continue head learns that there is an end, of folded steps: a lost life, a death, a limit may be one. What it
    writes over for that (`wm_marl.absent`, records after an end) is as it was recorded: no other measure sees it written over."""
    learned = agent.ready(agent.to_device(Batch(rows.steps, None, Index(rows.stream, rows.start)))).steps
    if "alive" not in steps:
        return learned["terminal"]
    return torch.where(learned["alive"] == steps["alive"], learned["terminal"], steps["terminal"])


def heads(found: Pass, steps: Steps, valid: Tensor, sees: int, discount: float) -> dict[str, Any]:
    """Rewards, ends and values against what was recorded, "terminal" as the model learns it. Of the posterior every record but
    resets counts, which bring no reward; of the dream those in the episode that it began in."""
    arrived = ~steps["first"]
    arrived[:, 0] = False  # of a row's first record no model knows what came before
    reward = numbers(found.reward[arrived], steps["reward"][arrived])
    after = steps["reward"][:, sees:]
    squared = (found.ahead.reward - after).square()
    reward["paid_mae"] = _paid(found.reward[arrived], steps["reward"][arrived])
    reward["ahead"] = by_horizon(squared, valid)  # mean squared error
    reward["ahead_mean"] = by_horizon((steps["reward"][arrived].mean() - after).square(), valid)  # of the mean reward
    cont = reliability(found.cont[arrived], ~steps["terminal"][arrived])
    result: dict[str, Any] = {"reward": reward, "continue": cont, "value": None}
    over = steps["last"] | steps["terminal"]
    came = Ahead(after, (~over[:, sees:]).float())
    result["own"] = None if found.own is None else promised(found.own, found.ahead, came, ~over[:, sees - 1])
    if found.value is not None and found.value.shape == steps["reward"].shape:
        returned, known = followed(steps["reward"], over, steps["terminal"], discount)
        result["value"] = numbers(found.value[known], returned[known]) | {
            "steps": int(known.sum()),
            "discount": discount,
        }
    return result


def _paid(said: Tensor, came: Tensor) -> float | None:
    paid = came != 0
    return (said - came)[paid].abs().mean().item() if bool(paid.any()) else None


def fitted(found: Pass, told: Tensor, fit: Tensor, sees: int) -> probe.Probe | None:
    """A probe of posterior features of the first half of rows; None where what is told never changes there."""
    examples, y = found.features[fit].flatten(0, 1), told[fit].flatten(0, 1)
    if not len(fit) or not bool((y != y[:1]).any()):
        return None
    return probe.choose(examples, y, fit.repeat_interleave(told.shape[1]))


def probed(
    one: probe.Probe, found: Pass, told: Tensor, fit: Tensor, test: Tensor, valid: Tensor, sees: int
) -> dict[str, Any]:
    """Its score on the other half: at the end of the context (0) and after each step of the dream, and, as what is to be
    had at most, at the posterior of the same steps; beside it the most frequent class, or 0 for the mean."""
    y, asked = told[test][:, sees - 1 :], torch.cat([torch.ones(len(test), 1, dtype=torch.bool), valid[test]], 1)
    known = told[fit].flatten(0, 1).mean(0)
    dreamed = torch.cat([found.features[test][:, sees - 1 : sees], found.imagined[test]], 1)
    common = known.expand_as(y) if one.classes else None
    scores = {
        "dream": probe.score(one(dreamed), y, known, asked, one.classes),
        "posterior": probe.score(one(found.features[test][:, sees - 1 :]), y, known, asked, one.classes),
        "baseline": [0.0 for _ in range(y.shape[1])]
        if common is None
        else probe.score(common, y, known, asked, one.classes),
    }
    return {"kind": "share right" if one.classes else "R2", "penalty": one.penalty, "tested": len(test), **scores}


def past(
    agent: Agent,
    steps: Steps,
    rows: Rows,
    sees: int,
    seed: int,
    valid: Tensor,
    probes: dict[str, probe.Probe],
    told: dict[str, Tensor],
    fit: Tensor,
    test: Tensor,
) -> dict[str, Any]:
    """What is lost where only the last records of the context are seen, and how the state after it depends on each."""
    near = {key: value[:, rows.context - sees : rows.context + 1] for key, value in steps.items()}
    near["reset"] = near["reset"].clone()
    near["reset"][:, 0] = True
    total, count = torch.zeros(sees, dtype=torch.float64), len(near["first"])
    agents = count // len(rows.stream)
    with quiet(agent):
        for here in cuts(count, agents):
            piece = {key: value[here] for key, value in near.items()}
            state, embed = state_after(agent, piece, sees, seed + here.start)
            total += gradient(state, embed, seed=seed).square() * len(piece["first"])
    norms = (total / count).sqrt().flip(0).tolist()  # by lag: 0 is the newest record
    lengths = powers(sees)
    short = {key: value[:, : rows.context + SHORT] for key, value in steps.items()}
    asked, errors = valid[:, :SHORT], dict[str, list[float | None]]()
    held: dict[str, list[float | None]] = {name: [] for name in probes}
    for length in lengths:
        seen = look(agent, short, rows.context, sees=length, seed=seed, whole=False, agents=agents)
        for key, of in seen.errors.items():
            errors.setdefault(key, []).append(_mean(of["model"], asked))
        for name, one in probes.items():
            y = told[name].flatten(2)[test][:, rows.context - 1 : rows.context]
            everywhere = torch.ones(len(test), 1, dtype=torch.bool)
            known = told[name].flatten(2)[fit, rows.context - sees :].flatten(0, 1).mean(0)  # as in `probed`
            held[name] += probe.score(one(seen.features[test][:, -1:]), y, known, everywhere, one.classes)
    found = {"lengths": lengths, "errors": errors, "probes": held, "short": asked.shape[1]}
    return found | {"gradient": norms, "gradient_share": shares(norms)}


def _mean(each: Tensor, valid: Tensor) -> float | None:
    return each[valid].mean().item() if bool(valid.any()) else None
