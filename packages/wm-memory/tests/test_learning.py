"""Recall and a classifier learn to look up what worked before: 8 cues, 4 doors, a rule that no weight can hold.

An episode is two records: a cue, answered by a random door; then the cue with its right door. Each row has a rule of
its own, so only its bank says which door the cue wants. The query is a cue alone.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from wm_core import draws
from wm_memory import OneHotActionEncoder, Recall, cosine
from wm_memory.norms import BatchNorm, evaluating

CUES, DOORS, EPISODES, WIDTH = 8, 4, 24, 32


def records(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Banks of 2 x EPISODES records (rows, C, CUES + DOORS), actions taken (rows, C, DOORS), queries, right doors."""
    rule = torch.randint(DOORS, (rows, CUES), generator=generator)
    cue = torch.randint(CUES, (rows, EPISODES), generator=generator)
    asked = torch.randint(CUES, (rows, 1), generator=generator)
    seen, door = F.one_hot(cue, CUES), F.one_hot(rule.gather(1, cue), DOORS)
    before = torch.cat([seen, torch.zeros_like(door)], -1)
    after = torch.cat([seen, door], -1)
    bank = torch.stack([before, after], 2).flatten(1, 2).float()
    tried = F.one_hot(torch.randint(DOORS, (rows, EPISODES), generator=generator), DOORS)
    actions = torch.stack([tried, torch.zeros_like(tried)], 2).flatten(1, 2).float()
    query = torch.cat([F.one_hot(asked, CUES), torch.zeros(rows, 1, DOORS, dtype=torch.long)], -1).float()
    return bank, actions, query, rule.gather(1, asked)[:, 0]


class Doors(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f_o = nn.Sequential(nn.Linear(CUES + DOORS, 64), BatchNorm(64), nn.ReLU(), nn.Linear(64, WIDTH))
        actions = OneHotActionEncoder(DOORS, WIDTH)
        # selection is not trained: count must cover the records of a cue, six on average, and a few look-alikes
        self.recall = Recall(width=WIDTH, action=DOORS, count=16, heads=4, blocks=2, actions=actions)
        self.out = nn.Linear(WIDTH, DOORS)

    def forward(self, bank: Tensor, actions: Tensor, query: Tensor, share: float = 1.0) -> Tensor:
        frames = torch.cat([bank, query], 1)
        with torch.no_grad(), evaluating(self.f_o):
            key = self.f_o(frames)
        memory = self.f_o(frames)
        mask = torch.ones(len(bank), 1, bank.shape[1], dtype=torch.bool) & (share > 0)
        similarity = cosine(key[:, -1:], key[:, :-1])
        f = self.recall(memory[:, -1:], memory[:, :-1], actions, mask, similarity=similarity)
        return self.out(f[:, 0])


def test_recall_learns_the_doors_from_its_bank_alone() -> None:
    torch.manual_seed(0)
    generator, model = torch.Generator().manual_seed(1), Doors()
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    with draws.drawing(draws.Generator(0)):
        for _ in range(250):
            *inputs, door = records(64, generator)
            loss = F.cross_entropy(model(*inputs), door)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    model.eval()
    bank, actions, query, door = records(512, generator)
    visited = (bank[..., :CUES] * query[..., :CUES]).sum(-1).any(1)
    right = model(bank, actions, query).argmax(-1) == door
    blind = model(bank, actions, query, share=0.0).argmax(-1) == door
    assert right[visited].float().mean() > 0.9
    assert blind.float().mean() < 0.4  # chance is 0.25: the weights hold no rule
