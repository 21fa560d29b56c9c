"""The README's classifier learns to remember over 100 steps of noise; without the state-space model it stays at chance."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[1] / "README.md"
STACK = "tokens, *_ = self.stack(self.stack.initial(len(x)), self.embed(x), first)"
CLAIM = "assert accuracy > 0.9\n"


def accuracy(old: str = "", new: str = "") -> float:
    """Of the README's program, with one piece replaced, on 256 fresh rows."""
    (program,) = (
        block for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "Classifier" in block
    )
    assert old in program and program.endswith(CLAIM)
    names: dict[str, Any] = {"__name__": "readme"}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(program.removesuffix(CLAIM).replace(old, new), names)
    return float(names["accuracy"])


def test_it_learns() -> None:
    assert accuracy() > 0.9


@pytest.mark.parametrize(
    "without",
    [
        pytest.param((STACK, "tokens = self.embed(x)"), id="no block"),
        pytest.param(("first = torch.zeros", "first = torch.ones"), id="a block that forgets at every step"),
    ],
)
def test_without_memory_it_stays_at_chance(without: tuple[str, str]) -> None:
    assert 0.15 < accuracy(*without) < 0.35
