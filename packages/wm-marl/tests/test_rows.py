"""Rows of agents, with values that say where they came from."""

import torch
from wm_marl import agents_of, rows_of


def test_row_b_n_plus_i_holds_agent_i_of_team_b():
    b, t, n = torch.meshgrid(torch.arange(2), torch.arange(5), torch.arange(3), indexing="ij")
    coded = 100 * b + 10 * t + n
    rows = rows_of(coded)
    assert rows.shape == (6, 5)
    assert rows[4].tolist() == [101, 111, 121, 131, 141]
    assert torch.equal(agents_of(rows, 3), coded)
