"""Teams: a world model and a memory for each agent, rows that stay apart, dreams in which agents of a moment stand together."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from env_adapters import make_vec
from po_dreamer.agent import PODreamer, build
from po_dreamer.cli import APP, load
from po_dreamer.team import PODreamerTeam
from torch import Tensor
from wm_core import draws, names
from wm_core.types import Batch, Dream
from wm_marl import Interleaved, by_moments, team_mean
from wm_memory import FusedRSSM
from wm_run import checkpoint, scoring
from wm_run.cli import main
from wm_run.configs import resolve
from wm_run.episodes import Episode
from wm_run.loading import runtime
from wm_run.replay import Replay
from wm_run.rollout import remembered, rows_of
from wm_run.teams import team_of
from wm_run.testing import check_data, check_killed
from wm_run.testing.acting import acted
from wm_run.testing.fixtures import finished

N = 3
leavers = finished(APP, "--task", "toy:leavers", "--eval_every", 100, "--final_episodes", 2)


def environments(task: str, n: int, agents: int) -> Any:
    return make_vec(task, n, workers=0, agents=agents, **({"times": "2"} if agents == 1 else {}))


def make_team(ablation: str = "", task: str = "toy:leavers", agents: int = N, **fields: Any) -> PODreamerTeam:
    config = runtime(dataclasses.replace(resolve(APP, "tiny", "", ablation), device="cpu", task=task, **fields))
    envs = environments(task, 1, agents)
    found = build(config, envs.observation_space, envs.action_spec, team_of(envs))
    assert isinstance(found, PODreamerTeam)
    return found


def live(agent: PODreamerTeam, steps: int = 60, task: str = "toy:leavers") -> Replay:
    """What two teams see, and what the agent notes of it."""
    return acted(agent, environments(task, 2, agent.agents), steps, length=agent.length, chunk=64)


def late(agent: PODreamerTeam, replay: Replay) -> Batch:
    """A batch of which every row has a past."""
    while True:
        batch = replay.sample(agent.batch, agent.length, past=agent.past)
        assert batch.past is not None
        if batch.past.valid.sum(1).min() >= 15:
            return batch


def posterior(agent: PODreamerTeam, batch: Batch) -> Tensor:
    """(B, T, N, D) of what the world model makes of a batch of teams, with the same draws every time."""
    agent.eval()
    rows = agent.folded(batch)
    with torch.no_grad(), draws.drawing(draws.Generator(0)):
        trace = agent.world.observe(agent.world.prefill(rows.past, len(rows.steps["first"])), rows.steps)
    return torch.cat([trace.latent.deter, trace.post.flatten(-2)], -1).unflatten(0, (-1, agent.agents)).transpose(1, 2)


def test_what_one_agent_remembers_and_sees_moves_no_other() -> None:
    agent = make_team()
    batch = late(agent, live(agent))
    before = posterior(agent, batch)
    key = names.noted({"key": 0})
    for change in (batch.steps["vector"], *(batch.past.stored[name] for name in key)):
        kept = change.clone()
        change[..., 1, :] = torch.randn_like(change[..., 1, :].float()).to(change.dtype)
        moved = (posterior(agent, batch) != before).flatten(0, 1).any(-1).any(0)
        assert moved.tolist() == [False, True, False]
        change.copy_(kept)


def test_a_key_planted_in_ones_memory_is_no_others() -> None:
    """Agent 0 remembers exactly what agent 2 looks for: the best hit there is, and none of agent 2's."""
    agent = make_team()
    agent.eval()
    batch, sought = late(agent, live(agent)), torch.randn(16)
    (name,) = names.noted({"key": 0})
    batch.past.stored[name][:, -1, 0] = sought.half()
    rows = agent.folded(batch)
    dynamics = agent.world.dynamics
    assert isinstance(dynamics, Interleaved) and isinstance(dynamics.dynamics, FusedRSSM)
    carry, embed = agent.world.prefill(rows.past, len(rows.steps["first"])), agent.world.encoder(rows.steps)
    embed["key"][:] = sought  # everybody looks for it
    _, _, similarity = dynamics.dynamics.memory.look(carry, embed, rows.steps["action"], rows.steps["reset"])
    best = similarity[:, 0, : agent.past].amax(-1).unflatten(0, (-1, N))  # in the past of the row's first step
    assert best[:, 0].min() > 0.999 and best[:, 1:].max() < 0.999


def test_what_is_noted_of_each_agent_comes_back_as_its_own() -> None:
    agent = make_team()
    replay = live(agent)
    batch, written = late(agent, replay), {}
    replay.sample = lambda *_, **__: batch  # type: ignore[method-assign]
    replay.annotate = lambda index, **found: written.update(found)  # type: ignore[method-assign]
    twin = copy.deepcopy(agent)
    agent.learn(replay)
    twin.train()
    (name,) = names.noted({"key": 0})
    expected = twin.world.encoder(agent.folded(batch).steps)["key"].unflatten(0, (-1, N)).transpose(1, 2)
    assert written[name].shape[:3] == (*batch.steps["first"].shape, N)
    torch.testing.assert_close(written[name], expected.half())


@pytest.mark.parametrize("policy", ["decentralised", "mat"])
def test_agents_of_a_moment_dream_side_by_side(policy: str) -> None:
    agent = make_team(policy=policy)
    batch = late(agent, live(agent))
    seen: list[Dream] = []
    real = agent.behaviour.optimise
    agent.behaviour.optimise = lambda dream: seen.append(dream) or real(dream)  # type: ignore[method-assign]
    twin = copy.deepcopy(agent)
    agent.update(batch)
    _, trace = twin.step_model(twin.ready(batch))
    (dream,), length = seen, batch.steps["first"].shape[1]
    assert torch.equal(dream.latent.deter[:, 0], by_moments(trace.latent.deter.flatten(0, 1).detach(), N, length))
    assert torch.equal(dream.reward, team_mean(dream.reward, N)) and torch.equal(dream.cont, team_mean(dream.cont, N))
    assert dream.mask is not None and (dream.action * ~dream.mask[:, :-1]).sum() == 0  # nothing that is forbidden


def test_alone_a_team_is_the_single_agent() -> None:
    """One agent: the world model's losses are those of PO-Dreamer's, at equal weights; its team adds only masks."""
    team = make_team(agents=1)
    config = runtime(dataclasses.replace(resolve(APP, "tiny"), device="cpu"))
    envs = environments("toy:leavers", 1, 1)
    single = build(config, envs.observation_space, envs.action_spec)
    assert isinstance(single, PODreamer)
    weights = {
        k.removeprefix("world.").replace("dynamics.dynamics.", "dynamics."): v for k, v in team.state_dict().items()
    }
    single.world.load_state_dict({k: v for k, v in weights.items() if k in single.world.state_dict()})
    rows = team.folded(late(team, live(team)))
    found = []
    for agent in (team, single):
        with draws.drawing(draws.Generator(0)), torch.no_grad():
            torch.manual_seed(0)
            agent.train()
            carry = agent.world.prefill(rows.past, len(rows.steps["first"]))
            found.append(agent.world.losses(carry, rows.steps, agent.clock)[0])
    assert found[0].keys() - found[1].keys() == {"action_mask"}
    assert all(torch.equal(found[0][name], loss) for name, loss in found[1].items())


@pytest.mark.parametrize("ablation", sorted(APP.files("ablations")))
def test_every_ablation_learns_of_a_team(ablation: str) -> None:
    agent = make_team(ablation, model_first=1, agent_order="random")
    replay = live(agent, 30)
    young, old = agent.learn(replay), agent.learn(replay)
    assert "loss/policy" not in young and {"loss/policy", "loss/action_mask", "health/mask_recall"} <= old.keys()
    assert all(value.isfinite().all() for value in old.values())


def test_the_dead_are_credited_as_the_config_says() -> None:
    batch = live(make_team()).sample(8, 8)
    for kind in ("team", "own"):
        agent = make_team(absent=kind)
        steps, ready = agent.folded(batch).steps, agent.ready(batch).steps
        assert not steps["alive"].all()
        ends = steps["terminal"] if kind == "team" else steps["terminal"] | ~steps["alive"]
        assert torch.equal(ready["terminal"], ends)
    assert make_team(credit="own").credited(given := object()) is given  # type: ignore[arg-type]


def test_keys_that_are_not_kept_are_made_anew_of_each_agent() -> None:
    agent = make_team(memory_keys="fresh")
    batch = late(agent, live(agent))
    past, found = batch.past, agent.ready(batch).past
    assert past is not None and found is not None and "vector" not in found.stored
    seen = past.stored["vector"]  # (B, P, N, ...)
    (key,) = (found.stored[name].unflatten(0, (-1, N)) for name in names.noted({"key": 0}))
    for i in range(N):
        fresh = agent.world.encoder.again({"vector": seen[:, :, i], "first": past.first})
        torch.testing.assert_close(key[:, i], fresh)


# ---- runs


def test_a_run_has_outcomes_and_says_what_recall_did(leavers: Path) -> None:
    rows = [json.loads(line) for line in (leavers / "metrics.jsonl").read_text().splitlines()]
    assert any("eval/won" in row for row in rows) and any("train/recall/worth_reward" in row for row in rows)
    scores = [json.loads(line) for line in (leavers / "scores.jsonl").read_text().splitlines()]
    assert scores and all(row["episode/won"] in (0, 1) for row in scores)


def test_an_evaluation_keeps_a_teams_memories_together(leavers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, given = load(leavers), []
    monkeypatch.setattr(scoring, "evaluate", lambda *_, carry, **__: given.append(carry) or [Episode(0.0, 1)] * 3)
    kept = checkpoint.load(checkpoint.latest(leavers)).state["loop"]["carry"]
    scoring.play(
        APP, dataclasses.replace(loaded.config, eval_envs=3), loaded.agent, {}, episodes=3, acting="mode", carry=kept
    )  # type: ignore[arg-type]
    key, mine = given[0]["key"].unflatten(0, (3, N)), kept["key"].unflatten(0, (2, N))
    assert torch.equal(key, mine[[0, 1, 0]]) and not torch.equal(mine[0, 0], mine[0, 1])
    assert rows_of(loaded.agent) == N and len(remembered(kept, 1, N)["key"]) == N


def test_memories_of_more_agents_are_refused_for_fewer(
    run: Any, leavers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six rows are two teams of three and would be three of two: others' memories, and no shape would tell."""
    with pytest.raises(SystemExit):
        run("eval", leavers, "--episodes", 2, "--env.agents", 2)
    assert "--memory empty" in capsys.readouterr().err
    run("eval", leavers, "--episodes", 2, "--env.agents", 2, "--memory", "empty")


def test_a_team_is_acted_for_by_its_policy(leavers: Path) -> None:
    loaded = load(leavers)
    envs = make_vec("toy:leavers", 1, workers=0)
    step, carry = envs.reset(0), None
    for _ in range(3):
        seen = {"vector": step["vector"][0]}
        actions, carry = loaded.policy(seen, carry, first=bool(step["first"][0]), mask=step["action_mask"][0])
        assert len(actions) == N and all(step["action_mask"][0, i, action] for i, action in enumerate(actions))
        chosen = torch.nn.functional.one_hot(torch.tensor(actions), 4).float().numpy()[None]
        step = envs.step(chosen)


def test_two_kills_leave_no_trace(tmp_path: Path) -> None:
    options = ["--preset", "tiny", "--task", "toy:leavers", "--save-every", "40", "--agent-order", "random"]
    check_killed("po_dreamer", options, tmp_path, steps=160, kills=2, places=["checkpoint", "file"], seed=1)


def test_a_team_is_learned_from_a_recording(tmp_path: Path) -> None:
    check_data(APP, tmp_path, "--task", "toy:whisper")


def test_a_published_team_keeps_the_memories_of_an_environments_agents_together(
    leavers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(APP, ["publish", str(leavers), "--to", str(tmp_path / "gift"), "--memories", "1"])
    whole, given = load(leavers, device="cpu"), load(tmp_path / "gift", device="cpu")
    assert (whole.environments, given.environments) == (2, 1)
    assert len(given.carry["key"]) == N and torch.equal(given.carry["key"], whole.carry["key"][:N])
    assert not torch.equal(whole.carry["key"][:N], whole.carry["key"][N:])
    capsys.readouterr()
    main(APP, ["eval", str(tmp_path / "gift"), "--episodes", "4", "--device", "cpu"])
    assert len(json.loads(capsys.readouterr().out)["scores"]) == 4
