"""What a team's heads and the Multi-Agent Transformer name for compiling is what they call. The compiler here only counts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from wm_core import Latent
from wm_core.fast.compiled import compile_parts, of_head
from wm_core.testing import assert_same
from wm_marl import AgentTransformer, MATPolicy, mat_critic, team_heads

N, A = 2, 4


def test_a_teams_parts_are_compiled_where_they_are_called_and_the_numbers_stay() -> None:
    torch.manual_seed(0)
    heads = team_heads(AgentTransformer(8, agents=N, width=8, layers=1, heads=2, hidden=8), A, units=8, layers=1)
    policy = MATPolicy(discrete=(A,), continuous=0, widths={"deter": 8}, agents=N, width=8, reads=("deter",))
    critic = mat_critic(policy)
    features, action = torch.randn(2 * N, 3, 8), torch.eye(A)[torch.randint(A, (2 * N, 3))]
    calls: dict[str, Any] = {
        "trunk and reward": lambda: heads["reward"](Latent(features, torch.zeros(2 * N, 3, 1, 2))).logits,
        "mask": lambda: heads["action_mask"](Latent(features, torch.zeros(2 * N, 3, 1, 2))).logits,
        "policy": lambda: policy.from_features(features).log_prob(action),
        "critic": lambda: critic.from_features(features).logits,
    }
    expected = {name: call().detach().clone() for name, call in calls.items()}
    graphs, now = Counter[str](), "none"

    def count(graph: Any, inputs: Any) -> Any:
        graphs[now] += 1
        return graph.forward

    named = [part for head in (*heads.values(), policy, critic) for part in of_head(head)]
    assert len(dict.fromkeys(named)) == 1 + len(heads) + 3  # the trunk once
    compile_parts(dict.fromkeys(named), count)
    for now, call in calls.items():
        assert_same(call().detach(), expected[now])
    # the mask's MLP is the reward's but for its weights, and may be served by the same graph
    assert set(graphs) >= set(calls) - {"mask"} and graphs["trunk and reward"] == 2, graphs
