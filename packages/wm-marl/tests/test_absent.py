"""The absorbing state, against a table made by hand and a loop in the words of the definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: PLC2701
from wm_marl import absent, absorbed, muted

A, NOOP = 3, 2


class NoHost(TorchDispatchMode):
    """Raises where a value is read on the host, or memory is sized by one: what a recorded graph cannot repeat."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        assert not any(word in name for word in ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero")), name
        return func(*args, **(kwargs or {}))


def steps(terminal: str, alive: str, reset: str = "", last: str = "") -> dict[str, Tensor]:
    """One row from strings of 0 and 1; all else says where it was recorded, from 1 on."""
    length = len(terminal)
    flags = {
        name: torch.tensor([[c == "1" for c in text]]) for name, text in (("terminal", terminal), ("alive", alive))
    }
    at = torch.arange(1.0, length + 1)[None]
    begins = torch.tensor([[c == "1" for c in reset or "0" * length]])
    return flags | {
        "vector": at[..., None].repeat(1, 1, 2),
        "image": at.to(torch.uint8)[..., None, None, None].repeat(1, 1, 2, 2, 1),
        "action": torch.eye(A)[torch.arange(length) % 2][None],
        "action_mask": torch.tensor([True, True, False]).repeat(1, length, 1),
        "reward": at,
        "first": begins,
        "reset": begins,
        "last": torch.tensor([[c == "1" for c in last or terminal]]),
        "weight": torch.ones(1, length),
        "state": at[..., None],
    }


def bits(value: Tensor) -> str:
    return "".join(str(int(x)) for x in value[0].tolist())


def test_a_table_made_by_hand():
    """An agent that dies at record 2; the episode ends at 4 (from 0), two records are absorbed, and the next is cut by time
    at 9: nothing follows from that."""
    given = steps(
        terminal="000010000000", alive="110001111111", reset="100001000010", last="000010000100"
    )  # record 5 is the first of the next episode, 10 that of the one after
    found = absent(given, observations=("vector", "image"), noop=NOOP, records=2)
    #              0123456789..
    assert bits(found["terminal"]) == "001111100000"  # 3 and 4 dead, 5 and 6 absorbing
    assert bits(found["alive"]) == "110000011111"
    assert bits(found["first"]) == "100000000010"
    assert bits(found["reset"]) == "100000010010"  # 7 goes on in the middle: what precedes it is not its past
    assert bits(found["last"]) == "000010000100"
    assert found["vector"][0, :, 0].tolist() == [1, 2, 0, 0, 0, 0, 0, 8, 9, 10, 11, 12]
    assert found["image"][0, :, 1, 1, 0].tolist() == [1, 2, 0, 0, 0, 0, 0, 8, 9, 10, 11, 12]
    assert found["image"].dtype == torch.uint8
    assert found["reward"][0].tolist() == [1, 2, 3, 4, 5, 0, 0, 8, 9, 10, 11, 12]
    assert found["state"][0, :, 0].tolist() == [1, 2, 3, 4, 5, 0, 0, 8, 9, 10, 11, 12]
    assert (
        bits(found["action_mask"][..., NOOP]) == "001111100000" and bits(found["action_mask"][..., 0]) == "110000011111"
    )
    assert found["action"][0].argmax(-1).tolist() == [0, 1, 0, 1, 0, NOOP, NOOP, 1, 0, 1, 0, 1]
    assert found["weight"] is given["weight"]
    team = absent(given, observations=("vector", "image"), noop=NOOP, records=2, own_end=False)
    assert bits(team["terminal"]) == "000011100000"
    assert {name for name in found if not torch.equal(found[name], team[name])} == {"terminal"}


def test_nothing_is_overwritten_without_records_and_nobody_dead_is_as_recorded():
    given = steps(terminal="0100", alive="1111", reset="1010")
    found = absent(given, observations=("vector", "image"), noop=NOOP, records=0)
    for name, value in given.items():
        assert torch.equal(found[name], value), name


def test_without_a_no_op_all_is_allowed_and_the_action_is_zero():
    found = absent(steps(terminal="0100", alive="1101"), observations=("vector",), noop=None, records=1)
    assert found["action_mask"][0].int().tolist() == [[1, 1, 0], [1, 1, 0], [1, 1, 1], [1, 1, 0]]
    assert found["action"][0].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 1, 0]]


def test_dead_agents_can_be_muted_instead():
    given = steps(terminal="00000", alive="10010")
    given["first"] = torch.zeros(1, 5, dtype=torch.bool)
    assert muted(given)["weight"].tolist() == [[1, 1, 0, 1, 1]]
    given["first"][0, 1] = True  # dead from an episode's beginning on: no death is seen there
    assert muted(given)["weight"].tolist() == [[1, 0, 0, 1, 1]]


def in_words(terminal: list[bool], records: int) -> list[bool]:
    """After a termination that stands, the next K records are overwritten; one that is overwritten does not stand."""
    over, left = [], 0
    for ended in terminal:
        over.append(left > 0)
        if left:
            left -= 1
        elif ended:
            left = records
    return over


@pytest.mark.parametrize("records", [0, 1, 2, 3, 7, 16, 40])
def test_what_is_overwritten_is_the_definition_in_words(records: int):
    generator = torch.Generator().manual_seed(records)
    for length in (1, 2, 5, 16, 33):
        share = torch.rand(200, 1, generator=generator)
        terminal = torch.rand(200, length, generator=generator) < share
        with NoHost():
            found = absorbed(terminal, records)
        assert found.tolist() == [in_words(row, records) for row in terminal.tolist()]


def loop(given: dict[str, Tensor], records: int, own_end: bool) -> dict[str, Tensor]:
    """`absent`, record by record."""
    found = {name: value.clone() for name, value in given.items()}
    rows, length = given["terminal"].shape
    for row in range(rows):
        over = in_words(given["terminal"][row].tolist(), records)
        for t in range(length):
            dead = not given["alive"][row, t]
            if dead or over[t]:
                found["vector"][row, t] = 0
                found["action_mask"][row, t] = torch.eye(A)[NOOP].bool()
                found["alive"][row, t] = False
            if (dead and own_end) or over[t]:
                found["terminal"][row, t] = True
            if over[t]:
                found["action"][row, t] = torch.eye(A)[NOOP]
                for name in ("reward", "first", "last", "reset", "state"):
                    found[name][row, t] = 0
            elif t and over[t - 1]:
                found["reset"][row, t] = True
    return found


@pytest.mark.parametrize("own_end", [True, False])
def test_random_flags_are_overwritten_record_by_record(own_end: bool):
    generator = torch.Generator().manual_seed(3)
    rows, length = 60, 21

    def flags(share: float) -> Tensor:
        return torch.rand(rows, length, generator=generator) < share

    given = {
        "terminal": flags(0.2), "alive": flags(0.7), "first": flags(0.3), "reset": flags(0.3), "last": flags(0.3),
        "vector": torch.rand(rows, length, 4, generator=generator), "reward": torch.rand(rows, length, generator=generator),
        "action": torch.rand(rows, length, A, generator=generator), "action_mask": flags(0.5)[..., None].repeat(1, 1, A),
        "state": torch.rand(rows, length, 2, generator=generator),
    }  # fmt: skip
    before = {name: value.clone() for name, value in given.items()}
    for records in (1, 3, 6):
        with NoHost():
            found = absent(given, observations=("vector",), noop=NOOP, records=records, own_end=own_end)
        for name, value in loop(given, records, own_end).items():
            assert torch.equal(found[name], value), name
    assert all(torch.equal(given[name], value) for name, value in before.items())
