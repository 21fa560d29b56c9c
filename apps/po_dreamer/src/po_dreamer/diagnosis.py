"""Does recall carry information, or is it only capacity? Numbers for the log, from one batch, without gradient."""

from __future__ import annotations

import torch
from wm_core import draws, names
from wm_core.agent import Agent
from wm_core.contracts import Metrics
from wm_core.types import Batch
from wm_marl import Interleaved
from wm_memory import FusedRSSM, RecalledRSSM, branch_kl, staleness, without_recall


def due(updates: int, every: int) -> bool:
    """Whether the update after so many is looked at: one in every so many, or none where it is 0.

    >>> [updates for updates in range(5) if due(updates, 2)]
    [0, 2, 4]
    >>> due(0, 0)
    False
    """
    return every > 0 and updates % every == 0


@torch.no_grad()
def diagnose(agent: Agent, batch: Batch) -> Metrics:
    """What recall chose, how stale the stored keys are, the KL of each branch, and what every head loses when z_mg is
    drawn from its prior ("recall/worth_<head>", the loss without recall minus the loss with it).

    The agent's own generator is not touched. An agent without a memory has nothing to tell.
    """
    world, steps = agent.world, batch.steps
    dynamics = world.dynamics.dynamics if isinstance(world.dynamics, Interleaved) else world.dynamics
    if not isinstance(dynamics, FusedRSSM | RecalledRSSM):
        return {}
    agent.eval()
    rows, length = steps["first"].shape
    with draws.drawing(draws.Generator(0, agent.device)), agent.computing():
        carry = world.prefill(batch.past, rows)
        embed = world.encoder(steps)
        found: Metrics = dict(dynamics.diagnose(carry, embed, steps["action"], steps["reset"]))
        earlier = torch.ones(length, length, dtype=torch.bool, device=agent.device).tril(-1).expand(rows, -1, -1)
        # at most a quarter of what a query sees, so that two selections can differ
        late, few = slice(length // 2, None), max(1, length // 8)
        found |= staleness(
            embed["key"][:, late], names.notes(steps)["key"].float(), embed["key"], earlier[:, late], count=few
        )
        if isinstance(dynamics, FusedRSSM):
            trace = dynamics.observe(carry, embed, steps["action"], steps["reset"])
            found |= branch_kl(trace)
            ablated = without_recall(trace)
            for name in ("reward", "cont"):
                target = steps["reward"] if name == "reward" else (1 - steps["terminal"].float()) * world.discount
                head = world.heads[name]
                found[f"recall/worth_{name}"] = (head(ablated).loss(target) - head(trace.latent).loss(target)).mean()
            shown, hidden = world.decoder(trace.latent), world.decoder(ablated)
            logged = names.logged(["reward", "cont", *names.observed(shown)])
            for key, name in zip(shown, names.observed(shown), strict=True):
                gain = (hidden[key].loss(steps[key]) - shown[key].loss(steps[key])).mean()
                found[f"recall/worth_{logged[name]}"] = gain
    return found
