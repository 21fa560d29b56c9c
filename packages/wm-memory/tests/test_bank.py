"""What is remembered, and who may see it. Sizes: B batch, T new steps, M window, C columns."""

import pytest
import torch
from wm_core.types import Past
from wm_memory import bank


def stream(length: int, *, rows: int = 2, width: int = 3, action: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    """A stream of steps with episodes of random lengths; actions are coded by time, zero at first."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.rand(rows, length, generator=generator) < 0.25
    time = torch.arange(1.0, length + 1)[None, :, None].expand(rows, -1, action)
    return {
        "key": torch.randn(rows, length, width, generator=generator),
        "action": time * (~first)[..., None],
        "first": first,
    }


def cut(steps: dict[str, torch.Tensor], start: int, stop: int) -> tuple[torch.Tensor, ...]:
    return tuple(steps[name][:, start:stop] for name in ("key", "action", "first"))


@pytest.mark.parametrize(("window", "before", "steps"), [(5, 0, 4), (5, 3, 4), (5, 20, 9), (4, 9, 1), (1, 3, 3)])
@pytest.mark.parametrize("sight", [bank.across_episodes, bank.this_episode])
def test_band_equals_a_loop_over_the_stream(window: int, before: int, steps: int, sight: bank.Sight) -> None:
    whole = stream(before + steps)
    kept = bank.empty((2,), window=window, width=3, action=2)
    if before:
        kept = bank.newest(bank.extend(kept, *cut(whole, 0, before)), window)
    seen = sight(bank.extend(kept, *cut(whole, before, before + steps)), window)
    assert seen.shape == (2, steps, window + steps)
    episode = whole["first"].long().cumsum(1)
    for row in range(2):
        for t in range(steps):
            now = before + t
            wanted = set()
            for then in range(max(0, now - window), now):  # the window before now, never now itself
                same = episode[row, then] == episode[row, now]
                if sight is bank.across_episodes or same:
                    wanted.add(then - before + window)  # its column
            assert set(seen[row, t].nonzero().flatten().tolist()) == wanted


def test_actions_belong_to_the_column_where_they_were_taken() -> None:
    # one row, window 3: episode (o0 -a1-> o1 -a2-> o2), then a reset record o3, then o3 -a4-> o4
    led = torch.tensor([[[0.0], [1.0], [2.0], [0.0], [4.0]]])
    first = torch.tensor([[True, False, False, True, False]])
    key = torch.arange(5.0)[None, :, None]
    columns = bank.extend(bank.empty((1,), window=3, width=1, action=1), key, led, first)
    #                                      -- empty --   o0 o1 o2 o3 o4: the terminal record o2 has no action
    assert bank.taken(columns).flatten().tolist() == [0, 0, 0, 1, 2, 0, 4, 0]


def test_acting_gives_the_newest_memory_the_action_of_the_current_step() -> None:
    steps, kept = stream(12), bank.empty((2,), window=4, width=3, action=2)
    for t in range(12):
        columns = bank.extend(kept, *cut(steps, t, t + 1))
        assert torch.equal(bank.taken(columns)[:, 3], steps["action"][:, t])
        kept = bank.newest(columns, 4)
    assert torch.equal(kept["key"], steps["key"][:, -4:])


def test_an_action_on_a_reset_record_is_ignored() -> None:
    columns = {"action": torch.ones(1, 3, 1), "first": torch.tensor([[False, True, False]])}
    assert bank.taken(columns).flatten().tolist() == [0, 1, 0]


@pytest.mark.parametrize("length", [2, 5, 11])
def test_rolling_through_acting_equals_the_prefix_of_replay(length: int) -> None:
    window, steps = 5, stream(length)
    kept = bank.empty((2,), window=window, width=3, action=2)
    for t in range(length):
        kept = bank.newest(bank.extend(kept, *cut(steps, t, t + 1)), window)
    past = Past(
        {"key": steps["key"][:, -window:]}, steps["action"], steps["first"], torch.ones(2, length, dtype=torch.bool)
    )
    loaded = bank.load(bank.empty((2,), window=window, width=3, action=2), past)
    for name, value in kept.items():
        assert torch.equal(loaded[name], value), name


def test_rows_without_a_past_keep_their_bank_and_padding_stays_invisible() -> None:
    steps = stream(4)
    before = bank.newest(bank.extend(bank.empty((2,), window=3, width=3, action=2), *cut(steps, 0, 3)), 3)
    valid = torch.tensor([[False, False], [False, True]])
    past = Past({"key": torch.ones(2, 2, 3)}, torch.ones(2, 2, 2), torch.zeros(2, 2, dtype=torch.bool), valid)
    loaded = bank.load(before, past)
    for name in before:
        assert torch.equal(loaded[name][0], before[name][0])
    assert loaded["valid"][1].tolist() == [True, False, True]
    nothing = Past(
        {"key": torch.ones(2, 0, 3)}, torch.ones(2, 0, 2), torch.zeros(2, 0).bool(), torch.zeros(2, 0).bool()
    )
    assert bank.load(before, nothing) is before
