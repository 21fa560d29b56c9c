"""Rows of a start are taken and joined whatever it is made of."""

import pytest
import torch
from wm_core.parallel import GRUBackbone, Parallel
from wm_core.rssm import RSSM
from wm_core.starts import join, take
from wm_core.types import Latent


def rows(seed: int, n: int) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"obs": torch.randn(n, 4, 5, generator=generator)}, torch.randn(n, 4, 2), torch.zeros(n, 4, dtype=torch.bool)


@pytest.mark.parametrize("kind", ["rssm", "parallel"])
def test_taken_and_joined_rows_dream_as_they_would_have(kind: str) -> None:
    torch.manual_seed(0)
    sizes = {"deter": 16, "stoch": (4, 3), "embed": 5, "action": 2, "hidden": 8}
    dynamics = RSSM(**sizes, blocks=2) if kind == "rssm" else Parallel(GRUBackbone(16), **sizes)
    starts = [dynamics.starts(dynamics.observe(dynamics.initial(n), *rows(n, n)), 1)[0] for n in (2, 3)]
    together = take(join(starts), torch.tensor([4, 0, 0]))
    action = torch.randn(3, 2)
    _, found = dynamics.imagine(together, action)
    _, last = dynamics.imagine(starts[1], torch.stack([action[0]] * 3))
    _, first = dynamics.imagine(starts[0], torch.stack([action[1]] * 2))
    assert torch.allclose(found.deter[0], last.deter[2]) and torch.allclose(found.deter[1], first.deter[0])


def test_what_no_row_can_be_taken_of_is_named() -> None:
    with pytest.raises(TypeError, match="holds a set, of which no row can be taken"):
        take({"seen": {1}}, torch.tensor([0]))


@pytest.mark.parametrize("hidden", [False, True])
def test_the_last_steps_of_a_latent_as_rows(hidden: bool) -> None:
    """Row b*last + t, of every feature that there is."""
    code = 10 * torch.arange(2.0)[:, None] + torch.arange(5.0)  # (B, T): 10 b + t
    latent = Latent(code[..., None], code[..., None, None], code[..., None] if hidden else None).rows(3)
    parts = [latent.deter, latent.stoch] + ([latent.hidden] if latent.hidden is not None else [])
    assert len(parts) == 2 + hidden
    assert all(part.flatten().tolist() == [2, 3, 4, 12, 13, 14] for part in parts)
