"""A stack under wm-core's `Parallel` obeys the laws of a dynamics; where wm-core is not installed there is none."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from wm_ssm import S5Stack, by_name

testing = pytest.importorskip("wm_core.testing")
parallel = pytest.importorskip("wm_core.parallel")


@pytest.mark.parametrize("out", [None, 16])
def test_a_stack_under_parallel_obeys_the_laws(out: int | None) -> None:
    torch.manual_seed(0)
    stack = S5Stack(16, 32, 2, out=out, blocks=2)
    for block in stack.blocks:
        nn.init.normal_(block.s5.start)  # learned to something
    for tensor in by_name(stack)["C"]:
        nn.init.normal_(tensor)  # what is remembered is seen in the output
    model = parallel.Parallel(stack, deter=16, stoch=(4, 3), embed=5, action=2, hidden=8)
    testing.check_dynamics(model, embed={"obs": 5}, action=2, length=40)
