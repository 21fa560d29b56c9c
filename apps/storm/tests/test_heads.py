"""What STORM's heads predict, in the precision of a GPU's default too."""

from __future__ import annotations

import pytest
import torch
from storm.heads import BINS, SymlogTwoHot
from wm_core.twohot import symlog


@pytest.mark.parametrize("value", [-2000.0, 0.3, 7.0, 196.0, 300.0, 40_000.0])
def test_a_mean_is_itself_under_autocast(value: float) -> None:
    """A product in bfloat16 keeps three digits of a number in symlog space: 300 came out as 304."""
    head = SymlogTwoHot(torch.zeros(1, BINS))
    below, share = head.split(torch.tensor([value]))
    probs = torch.zeros(1, BINS).scatter_(1, torch.stack([below, below + 1], 1), torch.stack([1 - share, share], 1))
    logits = probs.clamp(min=1e-30).log()
    with torch.autocast("cpu", torch.bfloat16):
        found = SymlogTwoHot(logits).mode()
    assert found.dtype == torch.float32
    assert symlog(found).item() == pytest.approx(symlog(torch.tensor(value)).item(), rel=1e-5)
    assert found.equal(SymlogTwoHot(logits).mode())
