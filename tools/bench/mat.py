"""Acting of the Multi-Agent Transformer over the number of agents: from a cache, and recomputing what was.

mat [--agents 3 5 10 25] [--teams 8 512]     teams: of 8 environments that are acted in, and of a dream's starts

All three run the encoder once. `recomputed` asks the decoder about the whole team for every agent's turn, as MAT's public
code does; `cached` asks it about one agent, with the keys and values of those before; `at once` is what asking about given
actions costs, in a single pass, which is what learning does. Actions are modes, so that all make the same.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from wm_marl import MATPolicy

from bench.cases import waiting
from bench.clock import COMPARED, ways
from bench.command import Command, add
from bench.rows import Row, here

FEATURES, MOVES = 128, 5  # of a latent; of an agent, which can also choose one of as many enemies as agents


def cached(policy: MATPolicy, features: Tensor, mask: Tensor) -> Tensor:
    """The mode, (M*N, A)."""
    return policy.from_features(features, mask).mode()


def recomputed(policy: MATPolicy, features: Tensor, mask: Tensor) -> Tensor:
    """The same, every turn computing the whole team's."""
    seen = policy.encoded(features)  # (M, N, D)
    allowed = mask.view(*seen.shape[:2], -1)
    action = torch.zeros(allowed.shape, device=seen.device)
    for agent in range(seen.shape[1]):
        action[:, agent] = policy.decoder(seen, action, allowed).mode()[:, agent]
    return action.flatten(0, 1)


@torch.no_grad()
def mat(args: Namespace, words: list[str]) -> Iterator[Row]:
    """Three rows for each number of agents and of teams; `different` is how many actions are others when recomputed."""
    torch.set_num_threads(1)
    device = torch.device(args.device)
    for agents in args.agents:
        torch.manual_seed(0)
        sizes = {"width": args.width, "blocks": args.blocks, "heads": args.heads}
        with device:
            policy = MATPolicy(
                discrete=(MOVES + agents,),
                continuous=0,
                widths={"deter": FEATURES},
                agents=agents,
                reads=("deter",),
                **sizes,
            )
        for weight in policy.parameters():
            weight.mul_(10.0)  # an untrained policy is uniform, and its mode rounding
        for teams in args.teams:
            features = torch.randn(teams * agents, FEATURES, device=device)
            mask = torch.rand(teams * agents, MOVES + agents, device=device) < 0.7
            given = policy, features, mask
            action = cached(*given)
            runs: dict[str, Callable[[], object]] = {
                "recomputed": lambda: recomputed(*given),  # noqa: B023 - called before the next
                "cached": lambda: cached(*given),  # noqa: B023
                "at once": lambda: policy.from_features(*given[1:]).log_prob(action),  # noqa: B023
            }
            about = {"agents": agents, "teams": teams, "device": args.device} | sizes
            about["different"] = int((action != recomputed(*given)).any(-1).sum())
            often = {name: lambda run=run: [run() for _ in range(args.repeat)] for name, run in runs.items()}
            for row in ways(args.rounds, often, warmup=args.warmup, wait=waiting(device)):
                each = {name: row[name] / args.repeat for name in ("cpu_s", "wall_s")}
                yield here() | about | row | each


def options(parser: ArgumentParser) -> None:
    add(parser, agents=[3, 5, 10, 25], teams=[8, 512], width=64, blocks=1, heads=1, device="cpu")
    parser.add_argument("--repeat", type=int, default=5, help="acts of a turn (default 5); times are of one")


SHOWN = {
    name: words for name, words in COMPARED.items() if name not in ("CPU s", "wall s", "system", "peak MB", "peak")
}
COLUMNS = {"agents": "{agents}", "teams": "{teams}"} | {"CPU ms": "{cpu_s:m.2f}", "wall ms": "{wall_s:m.2f}"} | SHOWN
COLUMNS |= {"different": "{different}"}
COMMANDS = {"mat": Command(mat, COLUMNS, options, app=False, rounds=15, key=("agents", "teams", "name"))}
