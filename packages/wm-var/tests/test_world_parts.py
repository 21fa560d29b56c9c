"""What value alignment adds to a world model, by the names of its arguments."""

import pytest
import torch
from torch import nn
from wm_var import sample, world_parts


@pytest.mark.parametrize(("weight", "kept"), [(0.0, None), (0.5, 0.5)])
def test_a_weight_of_nothing_is_adaptive(weight: float, kept: float | None) -> None:
    term = world_parts(nn.Linear(4, 3), torch.Generator(), weight=weight, warmup=7, dyn=0.3, detach=("deter",))
    var = term["regularisers"]["var"]
    assert (var.weight, var.warmup, var.dyn, var.rep, var.detach) == (kept, 7, 0.3, 0.1, ("deter",))


def test_samples_come_from_the_generator_alone_and_probabilities_from_none() -> None:
    logits, source, critic = torch.randn(2, 5, 4, 3), torch.Generator().manual_seed(3), nn.Linear(4, 3)
    common = torch.get_rng_state()
    drawn = world_parts(critic, source)["draw"](logits)
    assert torch.equal(drawn, sample(logits, torch.Generator().manual_seed(3)))
    state = source.get_state()
    assert torch.equal(world_parts(critic, source, state="probabilities")["draw"](logits), logits.softmax(-1))
    assert torch.equal(source.get_state(), state) and torch.equal(torch.get_rng_state(), common)
