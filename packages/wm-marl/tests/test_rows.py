"""Rows of agents, with values that say where they came from."""

import pytest
import torch
from wm_core import Batch, Past
from wm_core.types import Index
from wm_marl import agents_of, fold, fold_steps, rows_of, unfold

B, T, N = 2, 5, 3


def coded(*more: int, length: int = T) -> torch.Tensor:
    """(B, T, N, *more), the value 100 b + 10 t + i."""
    b, t, i = torch.meshgrid(torch.arange(B), torch.arange(length), torch.arange(N), indexing="ij")
    return (100 * b + 10 * t + i).view(B, length, N, *[1 for _ in more]).expand(-1, -1, -1, *more).clone()


def team(length: int = T) -> torch.Tensor:
    """(B, T), the value 100 b + 10 t."""
    return coded(length=length)[:, :, 0]


def batch() -> Batch:
    steps = {
        "vector": coded(4),
        "image": coded(2, 2, 3).to(torch.uint8),
        "action": coded(6).float(),
        "action_mask": coded(6) % 2 == 0,
        "alive": coded() % 3 == 0,
        "reward": coded().float(),
        "first": team() == 110,
        "weight": team().float(),
        "state": team()[..., None].expand(-1, -1, N) + 0.5,
        "/deter": coded(8).half(),
    }
    past = Past({"/deter": coded(8, length=2).half()}, coded(6, length=2).float(), team(2) == 100, team(2) > 0)
    return Batch(steps, past, Index(torch.tensor([3, 4]), torch.tensor([10, 20])))


def test_row_b_n_plus_i_holds_agent_i_of_team_b():
    rows = rows_of(coded())
    assert rows.shape == (6, 5)
    assert rows[4].tolist() == [101, 111, 121, 131, 141]
    assert torch.equal(agents_of(rows, N), coded())


def test_every_entry_of_a_folded_batch_is_where_its_value_says():
    given = batch()
    folded = fold(given, state=True)
    assert given.steps.keys() == folded.steps.keys()
    for name, value in folded.steps.items():
        assert value.dtype == given.steps[name].dtype and value.shape[:2] == (B * N, T)
        for b in range(B):
            for i in range(N):
                whole = given.steps[name]
                own = whole[b] if whole.dim() == 2 or name == "state" else whole[b, :, i]
                assert torch.equal(value[b * N + i], own), name
    past, before = folded.past, given.past
    assert past is not None and before is not None
    for b in range(B):
        for i in range(N):
            row = b * N + i
            assert torch.equal(past.stored["/deter"][row], before.stored["/deter"][b, :, i])
            assert torch.equal(past.action[row], before.action[b, :, i])
            assert torch.equal(past.first[row], before.first[b]) and torch.equal(past.valid[row], before.valid[b])
    assert torch.equal(folded.index.stream, given.index.stream) and torch.equal(folded.index.start, given.index.start)


def test_the_global_state_is_left_out_unless_asked_for_even_where_it_has_as_many_entries_as_there_are_agents():
    assert "state" not in fold(batch()).steps
    assert fold(batch(), state=True).steps["state"].shape == (B * N, T, N)


def test_a_single_step_folds_as_acting_needs_it():
    steps = {name: value[:, :1] for name, value in batch().steps.items()}
    assert fold_steps(steps, N)["vector"][:, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]


def test_notes_go_back_to_where_they_came_from():
    given = batch().steps
    notes = {name: value for name, value in fold_steps(given, N).items() if name in ("/deter", "reward")}
    for name, value in unfold(notes, N).items():
        assert torch.equal(value, given[name])


def test_what_is_no_team_is_refused():
    steps = batch().steps
    with pytest.raises(ValueError, match=r"'vector' of shape \(2, 5, 4, 4\) has not 3 agents"):
        fold_steps(steps | {"vector": torch.zeros(B, T, 4, 4)}, N)
    with pytest.raises(ValueError, match="no agents to fold"):
        fold(Batch(steps | {"reward": torch.zeros(B, T)}, None, batch().index))
