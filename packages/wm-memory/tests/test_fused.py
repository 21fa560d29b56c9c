"""FusedRSSM and RecalledRSSM: the laws, the memory in replay and in acting, and what learns. Sizes as in fused.py."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from wm_core import draws
from wm_core.contracts import Dynamics
from wm_core.norm import RMSNorm
from wm_core.rssm import RSSM
from wm_core.testing import check_dynamics
from wm_core.types import Past
from wm_memory import (
    ActionEncoder,
    AgePositions,
    CrossAttention,
    FusedRSSM,
    Gaussian,
    InitialRows,
    Memory,
    NoActions,
    NoPositions,
    NormGRU,
    OneHotActionEncoder,
    PairAttention,
    Recall,
    RecalledRSSM,
    Repeat,
    across_episodes,
    bank,
    branch_kl,
    staleness,
    this_episode,
    without_recall,
)

E, A, M, D, S, K, O = 16, 3, 6, 16, 16, 8, 5


def recall(cls: type[Recall] = Recall, **parts: Any) -> Recall:
    return cls(width=E, action=A, count=4, heads=2, **parts)


def memory(**parts: Any) -> Memory:
    torch.manual_seed(3)
    bottleneck = Gaussian(E, 12, hidden=16)
    with torch.no_grad():
        bottleneck.mean.weight *= 10  # loud enough to change the modes of untrained posteriors
    defaults: dict[str, Any] = {"bottleneck": bottleneck, "sight": this_episode}
    return Memory(parts.pop("recall", None) or recall(), action=A, window=M, **(defaults | parts))


def fused(memory_: Memory | None = None, **parts: Any) -> FusedRSSM:
    torch.manual_seed(0)
    return FusedRSSM(
        memory=memory_ or memory(), deter=D, stoch=(S, K), embed=O, action=A, hidden=8, **({"blocks": 2} | parts)
    )


def recalled(memory_: Memory | None = None, stored: bool = True, **parts: Any) -> RecalledRSSM:
    kept = memory_ or memory(**parts)
    rssm = RSSM(deter=D, stoch=(S, K), embed=kept.width, action=A, hidden=8, blocks=2)
    return RecalledRSSM(kept, rssm, stored=stored)


def embed(rows: int, length: int) -> dict[str, Tensor]:
    """In evaluation "memory" and "key" are one."""
    generator = torch.Generator().manual_seed(0)
    key = torch.randn(rows, length, E, generator=generator)
    return {"obs": torch.randn(rows, length, O, generator=generator), "memory": key, "key": key}


def steps(length: int, rows: int = 2) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    first = torch.rand(rows, length, generator=generator) < 0.2
    action = torch.nn.functional.one_hot(torch.randint(A, (rows, length), generator=generator), A).float()
    return embed(rows, length), action * (~first)[..., None], first


def part(inputs: tuple[dict[str, Tensor], Tensor, Tensor], start: int, stop: int) -> tuple[Any, ...]:
    found, action, first = inputs
    return {n: v[:, start:stop] for n, v in found.items()}, action[:, start:stop], first[:, start:stop]


def s_net_cells() -> tuple[NormGRU, NormGRU]:
    cells = [NormGRU(deter=D, state=(2 * D, 2 * S * K), action=A, hidden=8) for _ in range(2)]
    return cells[0], cells[1]


VARIANTS: dict[str, Callable[[], Dynamics]] = {
    "full": fused,
    "no bottleneck": lambda: fused(memory(bottleneck=None)),
    "no cross-attention": lambda: fused(attention=nn.Identity()),
    "literal cross-attention": lambda: fused(attention=CrossAttention(D)),
    "no position": lambda: fused(memory(recall=recall(positions=NoPositions(E)))),
    "age": lambda: fused(memory(recall=recall(positions=AgePositions(M, E)))),
    "no action": lambda: fused(memory(recall=recall(actions=NoActions()))),
    "content none": lambda: fused(memory(content="none")),
    "co+co": lambda: fused(memory(recall=recall(Repeat))),
    "S nets": lambda: fused(cells=s_net_cells()),
    "mg only": recalled,
    "no batch norm": lambda: fused(memory(bottleneck=Gaussian(E, 12, hidden=16, norm=RMSNorm))),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_laws_hold(name: str) -> None:
    assert isinstance(VARIANTS[name](), Dynamics)
    check_dynamics(VARIANTS[name](), embed=embed, action=A)


@pytest.mark.parametrize("make", [fused, recalled])
def test_recall_across_episodes_declares_its_exception(make: Callable[..., Any]) -> None:
    model = make(memory(sight=across_episodes)) if make is fused else make(sight=across_episodes)
    check_dynamics(model, embed=embed, action=A, across_episodes=True)
    with pytest.raises(AssertionError, match="what preceded a reset"):
        check_dynamics(model, embed=embed, action=A)


def sees_the_present(columns: bank.Bank, window: int) -> Tensor:
    age = bank.ages(columns["valid"].shape[1] - window, columns["valid"].shape[1])
    return ((age >= 0) & (age <= window)) & columns["valid"][:, None]


def sees_the_future(columns: bank.Bank, window: int) -> Tensor:
    return columns["valid"][:, None].expand(-1, columns["valid"].shape[1] - window, -1)


@pytest.mark.parametrize("sight", [sees_the_present, sees_the_future])
def test_a_memory_that_sees_too_much_is_caught(sight: bank.Sight) -> None:
    with pytest.raises(AssertionError, match=r"pieces|later step"):
        check_dynamics(fused(memory(sight=sight)), embed=embed, action=A, across_episodes=True)


def test_a_recurrent_half_that_ignores_first_is_caught() -> None:
    class Deaf(FusedRSSM):
        def observe(self, carry: Any, embed: Any, action: Tensor, first: Tensor) -> Any:
            heard = self.memory(carry, embed, action, first)
            trace = super().observe(carry, embed, action, torch.zeros_like(first))
            return dataclasses.replace(trace, carry={**trace.carry, **heard.bank})

    torch.manual_seed(0)
    model = Deaf(memory=memory(sight=across_episodes), deter=D, stoch=(S, K), embed=O, action=A, hidden=8, blocks=2)
    with pytest.raises(AssertionError, match="reset"):
        check_dynamics(model, embed=embed, action=A, across_episodes=True)


@pytest.mark.parametrize("length", [1, 4, 6, 17])
@pytest.mark.parametrize("make", [fused, recalled])
def test_prefill_from_fresh_entries_equals_observing_the_past(length: int, make: Callable[[], Any]) -> None:
    model, inputs = make().eval(), steps(length)
    with draws.drawing(draws.Fixed()):
        trace = model.observe(model.initial(2), *inputs)
    kept = {name: value[:, -model.stores[name] :] for name, value in model.stored(trace).items()}
    past = Past(kept, inputs[1], inputs[2], torch.ones(2, length, dtype=torch.bool))
    carry = model.prefill(model.initial(2), past)
    assert carry.keys() == trace.carry.keys()
    for name, value in trace.carry.items():
        assert carry[name].shape == value.shape and carry[name].dtype == value.dtype
        assert torch.allclose(carry[name].float(), value.float(), atol=2e-3), name


@pytest.mark.parametrize("make", [fused, recalled])
def test_rows_from_the_initial_state_remember_all_the_same(make: Callable[..., Any]) -> None:
    """The recurrent states begin as an episode's do, the action before them unseen; the memory has all that was before,
    and knows that no episode begins."""
    model, other = (make(memory(sight=across_episodes), stored=stored).eval() for stored in (False, True))
    other.load_state_dict(model.state_dict())
    assert model.stores == {"key": M} and model.stored(model.observe(model.initial(2), *steps(5))).keys() == {"key"}
    before, row = part(steps(11), 0, 5), part(steps(11), 5, 11)
    row[2][:] = False
    with draws.drawing(draws.Fixed()):
        kept = other.stored(other.observe(other.initial(2), *before))
        past = Past(kept, before[1], before[2], torch.ones(2, 5, dtype=torch.bool))
        first = torch.tensor([True] + [False] * 5).expand(2, -1)
        mine, stored = (one.observe(one.prefill(one.initial(2), past), *row) for one in (model, other))
        fresh = model.observe(model.initial(2), row[0], row[1], first)
        pieces, carry = [], model.prefill(model.initial(2), past)
        for t in range(6):
            pieces.append(model.observe(carry, *part(row, t, t + 1)))
            carry = pieces[-1].carry
    assert torch.allclose(mine.targets["memory"], stored.targets["memory"], atol=1e-6)
    assert torch.equal(mine.latent.deter[:, 0], fresh.latent.deter[:, 0])
    assert (mine.latent.deter[:, 0] - stored.latent.deter[:, 0]).abs().max() > 0.01
    assert torch.allclose(torch.cat([one.latent.deter for one in pieces], 1), mine.latent.deter, atol=1e-5)
    assert carry.keys() == mine.carry.keys() == model.initial(2).keys()


def test_an_rssm_that_stores_nothing_begins_its_rows_anew() -> None:
    rssm = RSSM(deter=D, stoch=(S, K), embed=O, action=A, hidden=8, blocks=2)
    model, inputs = InitialRows(rssm), steps(6)
    past = Past({}, inputs[1], inputs[2], torch.ones(2, 6, dtype=torch.bool))
    first = inputs[2].clone()
    first[:, 0] = True
    with draws.drawing(draws.Fixed()):
        mine = model.observe(model.prefill(model.initial(2), past), inputs[0], inputs[1], inputs[2])
        fresh = rssm.observe(rssm.initial(2), inputs[0], inputs[1], first)
    assert torch.equal(mine.latent.deter, fresh.latent.deter)
    check_dynamics(model, embed=embed, action=A)


def test_a_gru_may_read_the_last_part_of_the_state_alone() -> None:
    cell = NormGRU(deter=D, state=(S * K,), action=A, hidden=8)
    deter, stoch, driven = torch.randn(2, D), torch.randn(2, S * K), cell.drive(torch.zeros(2, A))
    assert torch.equal(cell(deter, (deter + 1, stoch), driven), cell(deter, (stoch,), driven))
    assert cell.inputs.weight.shape == (8, S * K + A)


def test_stored_is_compact_and_complete() -> None:
    model = fused()
    stored = model.stored(model.observe(model.initial(2), *steps(5)))
    assert {name: (tuple(v.shape), v.dtype) for name, v in stored.items()} == {
        "deter": ((2, 5, 2 * D), torch.float16),
        "stoch": ((2, 5, 2 * S), torch.uint8),
        "key": ((2, 5, E), torch.float16),
    }
    assert model.stores == {"deter": 1, "stoch": 1, "key": M}
    assert model.widths == {"deter": 2 * D, "stoch": 2 * S * K}


def test_acting_equals_replaying_a_long_stream_across_many_windows() -> None:
    model, inputs = fused(memory(sight=across_episodes)).eval(), steps(40)
    with draws.drawing(draws.Fixed()), torch.no_grad():
        whole = model.observe(model.initial(2), *inputs)
        carry = model.initial(2)
        for t in range(40):
            trace = model.observe(carry, *part(inputs, t, t + 1))
            carry = trace.carry
            assert torch.allclose(trace.targets["memory"][:, 0], whole.targets["memory"][:, t], atol=1e-4)
            assert torch.allclose(trace.post[:, 0], whole.post[:, t], atol=1e-4)


def test_imagination_never_touches_the_memory() -> None:
    model = fused()
    trace = model.observe(model.initial(2), *steps(5))
    carry, latent = model.starts(trace, 5)
    assert carry.keys() == {"deter", "stoch"}

    def forbidden(*_: Any) -> None:
        raise AssertionError("imagination looked at the memory")

    for module in model.memory.modules():
        module.register_forward_pre_hook(forbidden)
    for _ in range(3):
        carry, latent = model.imagine(carry, torch.zeros(10, A))
    assert carry.keys() == {"deter", "stoch"} and latent.stoch.shape == (10, 2 * S, K)
    with pytest.raises(AssertionError, match="looked"):
        model.observe(model.initial(2), *steps(5))


class Listening(Recall):
    """A recall that notes the actions it is given, and which keys each query may see."""

    def read(self, query: Tensor, keys: Tensor, actions: Tensor, mask: Tensor, **rest: Any) -> Any:
        self.heard = [
            {int(keys[0, c, 0]): int(actions[0, c, 0]) for c in mask[0, t].nonzero().flatten()}
            for t in range(mask.shape[1])
        ]
        return super().read(query, keys, actions, mask, **rest)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_recall_pairs_each_frame_with_the_action_taken_at_it(size: int) -> None:
    # frames are numbered from 1; action n led to frame n; frames 1, 4 and 7 begin episodes
    kept = Memory(Listening(width=E, action=1, count=4, heads=2), action=1, window=3)
    number = torch.arange(1.0, 8.0)[None, :, None]
    key = number.expand(-1, -1, E)
    first = torch.tensor([[True, False, False, True, False, False, True]])
    carry, heard = kept.initial(1), []
    for start in range(0, 7, size):
        cut = slice(start, start + size)
        chunk = {"memory": key[:, cut], "key": key[:, cut]}
        carry = kept(carry, chunk, number[:, cut] * ~first[:, cut, None], first[:, cut]).bank
        heard += kept.recall.heard
    assert heard == [
        {},
        {1: 2},
        {1: 2, 2: 3},
        {1: 2, 2: 3, 3: 0},  # frame 3 ended its episode: nothing was done there
        {2: 3, 3: 0, 4: 5},
        {3: 0, 4: 5, 5: 6},
        {4: 5, 5: 6, 6: 0},
    ]


def test_selection_follows_the_keys_and_not_the_frames_as_they_train() -> None:
    kept, (found, action, first) = memory(sight=across_episodes), steps(12)
    key = found["key"]
    one = kept.look(kept.initial(2), {"memory": key, "key": key}, action, first)[1].chosen
    two = kept.look(kept.initial(2), {"memory": torch.randn_like(key), "key": key}, action, first)[1].chosen
    other = kept.look(kept.initial(2), {"memory": key, "key": torch.randn_like(key)}, action, first)[1].chosen
    assert torch.equal(one.index, two.index)
    assert not torch.equal(one.index, other.index)


@pytest.mark.parametrize(("content", "through_keys"), [("chunk", True), ("none", False)])
def test_gradient_reaches_the_chunks_frames_and_never_the_prefix(content: str, through_keys: bool) -> None:
    model = fused(memory(sight=across_episodes, content=content)).eval()
    inputs = steps(12)
    carry = model.observe(model.initial(2), *part(inputs, 0, 6)).carry
    carry = {name: value.detach() for name, value in carry.items()}
    carry["key"].requires_grad_()
    found, action, first = part(inputs, 6, 12)
    found = {"obs": found["obs"], "memory": found["memory"].clone().requires_grad_(), "key": found["key"].clone()}
    found["key"].requires_grad_()
    trace = model.observe(carry, found, action, first)
    assert not trace.carry["key"].requires_grad and not trace.targets["memory"].requires_grad
    trace.post[:, -1].sum().backward()
    assert found["key"].grad is None  # neither similarity nor what is stored
    # the last step's own query always learns; the frames before it, recalled as keys, learn in "chunk" alone.
    # (Earlier queries too reach the last step, through the recurrent state: cut by the frames' own recall below.)
    reading = model.memory(carry, found, action, first)
    (grad,) = torch.autograd.grad(reading.f[:, -1].sin().sum(), found["memory"])
    assert grad[:, -1].abs().max() > 0
    assert (grad[:, :-1].abs().max() > 0) == through_keys


def test_the_bank_that_replay_loads_carries_no_gradient() -> None:
    model, inputs = fused(), steps(6)
    stored = model.stored(model.observe(model.initial(2), *inputs))
    carry = model.prefill(model.initial(2), Past(stored, *inputs[1:], torch.ones(2, 6, dtype=torch.bool)))
    assert not any(value.requires_grad for value in carry.values())


def test_everything_learns_from_the_models_losses() -> None:
    model = fused(memory(sight=across_episodes))
    trace = model.observe(model.initial(2), *steps(20))
    (trace.latent.read("deter", "stoch").sin().sum() + trace.prior.sin().sum() + trace.post.sin().sum()).backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.abs().max() > 0, name
    q, k, _ = model.attention.qkv.weight.grad.chunk(3)
    assert q.abs().max() > 1e-7 and k.abs().max() > 1e-7


def test_targets_are_what_was_recalled() -> None:
    model, inputs = fused().eval(), steps(7)
    trace = model.observe(model.initial(2), *inputs)
    assert torch.equal(trace.targets["memory"], model.memory(model.initial(2), *inputs).f.detach())
    assert model.nats(trace).shape == (2, 7) and model.nats(trace).requires_grad


def test_parameters_of_each_part_at_the_papers_sizes() -> None:
    deter, stoch, width, hidden, action = 512, (32, 32), 512, 512, 18
    flat, norm = 32 * 32, 2 * 512
    kept = Memory(Recall(width=width, action=action), action=action, bottleneck=Gaussian(width))
    cells = [NormGRU(deter=deter, state=(2 * deter, 2 * flat), action=action, hidden=hidden) for _ in range(2)]
    model = FusedRSSM(
        memory=kept,
        deter=deter,
        stoch=stoch,
        embed=4096,
        action=action,
        hidden=hidden,
        layers=1,
        cells=(cells[0], cells[1]),
    )

    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    def dense(inputs: int, outputs: int) -> int:
        return (inputs + 1) * outputs

    assert count(kept.recall.actions) == dense(action, 512) + dense(512, 512) + 2 * norm
    assert count(kept.recall.blocks) == 3 * (6 * dense(512, 512) + 2 * norm)
    assert count(kept.bottleneck) == dense(512, 256) + dense(256, 256) + 2 * 512 + 2 * dense(256, 20)
    assert count(model.attention) == 4 * dense(512, 512) + norm
    gru = dense(3072 + action, 512) + 512 + 1024 * 1536 + 1536
    prior = dense(512, 512) + 512 + dense(512, flat)
    for branch, embed_width in ((model.co, 4096), (model.mg, 20)):
        assert count(branch.cell) == gru
        assert count(branch.prior) == prior
        assert count(branch.posterior) == dense(512 + embed_width, 512) + 512 + dense(512, flat)
    assert model.widths["deter"] + model.widths["stoch"] == 3072


def test_diagnostics_of_a_memory_written_by_hand() -> None:
    model = fused(memory(sight=across_episodes)).eval()
    # one row: three steps of one episode, then the query's own; the query is like the oldest and unlike the others
    like, unlike = torch.eye(E)[0], torch.eye(E)[1]
    key = torch.stack([like, unlike, unlike, like])[None]
    inputs = {"obs": torch.zeros(1, 4, O), "memory": key, "key": key}
    first = torch.tensor([[True, False, False, True]])
    model.memory.recall.count = 1
    carry = model.memory.prefill(
        model.initial(1),
        Past({"key": key[:, :3]}, torch.zeros(1, 3, A), first[:, :3], torch.ones(1, 3, dtype=torch.bool)),
    )
    carry = model.initial(1) | carry
    last = {name: value[:, 3:] for name, value in inputs.items()}
    found = model.diagnose(carry, last, torch.zeros(1, 1, A), first[:, 3:])
    assert all(value.ndim == 0 for value in found.values())
    wanted = {"recall/entropy": 0, "recall/age": 3, "recall/past_episodes": 1, "recall/cosine": 1, "recall/found": 1}
    assert {name: round(found[name].item(), 4) for name in wanted} == wanted
    assert found["recall/cosine_gap"].item() == pytest.approx(2 / 3, abs=1e-4)
    assert found["bottleneck/std"] > 0
    told = model.recalled(carry, last, torch.zeros(1, 1, A), first[:, 3:])
    assert (told.age.tolist(), told.episodes.tolist(), told.taken.tolist()) == ([[[3]]], [[[1]]], [[[True]]])
    assert told.weight.tolist() == [[[1]]]  # of the only one
    told = model.recalled(carry, last, torch.zeros(1, 1, A), first[:, :1] & False)
    assert (told.age.tolist(), told.episodes.tolist()) == ([[[3]]], [[[0]]])  # the episode goes on


@pytest.mark.parametrize("make", [fused, recalled])
def test_what_is_recalled_is_what_a_loop_over_the_columns_finds(make: Any) -> None:
    """Ages and episodes of three rows, each with its own past; weights are the attention's, over what is taken."""
    torch.manual_seed(1)
    model, steps, past = make(memory(sight=across_episodes)).eval(), 4, 9
    key = torch.randn(3, past + steps, E)
    first = torch.rand(3, past + steps) < 0.3
    valid = torch.arange(past) >= torch.tensor([0, 5, past])[:, None]  # the last row has no past
    carry = model.initial(3) | model.memory.prefill(
        model.initial(3), Past({"key": key[:, :past]}, torch.randn(3, past, A), first[:, :past], valid)
    )
    embed = {"obs": torch.zeros(3, steps, O), "memory": key[:, past:], "key": key[:, past:]}
    action, reset = torch.randn(3, steps, A), first[:, past:]
    told = model.recalled(carry, embed, action, reset)
    _, reading, _ = model.memory.look(carry, embed, action, reset)
    for row in range(3):
        for t in range(steps):
            seen = [at for at in range(past + t) if past + t - at <= M and (at >= past or valid[row, at])]
            alike = F.cosine_similarity(key[row, past + t][None], key[row, seen], dim=-1) if seen else torch.zeros(0)
            chosen = sorted(seen[i] for i in alike.topk(min(model.memory.recall.count, len(seen))).indices.tolist())
            ok = told.taken[row, t]
            assert told.age[row, t][ok].tolist() == [past + t - at for at in chosen]
            since = [int(first[row, at + 1 : past + t + 1].sum()) for at in chosen]
            assert told.episodes[row, t][ok].tolist() == since
            weights = torch.stack([one[row, :, t].mean(0) for one in reading.weights]).mean(0)
            assert torch.allclose(told.weight[row, t][ok], weights[ok]) and not told.weight[row, t][~ok].any()
            assert not chosen or told.weight[row, t].sum().item() == pytest.approx(1)


@pytest.mark.parametrize("kind", [Recall, Repeat])
@pytest.mark.parametrize("make", [fused, recalled])
def test_the_memory_latent_is_told_over_rows_steps_and_units(
    make: Callable[[Memory], FusedRSSM | RecalledRSSM], kind: type[Recall]
) -> None:
    """Against the moments of every step one by one, then of a bottleneck that is written by hand."""
    model = make(memory(recall=recall(kind), sight=across_episodes)).eval()
    carry, inputs, bottleneck = model.initial(2), steps(9), model.memory.bottleneck
    found, read = model.diagnose(carry, *inputs), model.memory(carry, *inputs)
    means, variances = [], []
    for f in read.f.detach().flatten(0, 1).split(1):
        mean, std = bottleneck.moments(f)
        means += mean[0].tolist()
        variances += [one**2 for one in std[0].tolist()]
    assert len(means) == 2 * 9 * 12
    assert found["recall/latent_mean"].item() == pytest.approx(sum(means) / len(means), abs=1e-5)
    assert found["recall/latent_variance"].item() == pytest.approx(sum(variances) / len(variances), rel=1e-4)
    with torch.no_grad():
        for layer, values in ((bottleneck.mean, [-3.0, 1.0]), (bottleneck.raw, [0.5, 2.0])):
            layer.weight.zero_()
            layer.bias.copy_(torch.tensor(values * 6))
        bottleneck.raw.bias.copy_((bottleneck.raw.bias - 1e-3).expm1().log())  # the inverse of softplus
    found = model.diagnose(carry, *inputs)
    assert found["recall/latent_mean"].item() == pytest.approx(-1.0, abs=1e-5)  # |mu| has 2
    assert found["recall/latent_variance"].item() == pytest.approx(2.125, abs=1e-4)  # mean sigma squared is 1.5625


def test_a_memory_without_a_bottleneck_has_no_latent_to_tell() -> None:
    model = fused(Memory(recall(), action=A, window=M))
    found = model.diagnose(model.initial(2), *steps(9))
    assert "recall/found" in found and not [name for name in found if "latent" in name or "bottleneck" in name]


def test_diagnosing_changes_nothing() -> None:
    model = fused()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.diagnose(model.initial(2), *steps(9))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_kl_of_the_branches_adds_up_and_recall_can_be_taken_away() -> None:
    model = fused()
    trace = model.observe(model.initial(2), *steps(9))
    whole = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=trace.post), torch.distributions.Categorical(logits=trace.prior)
    )
    parts = branch_kl(trace)
    assert sum(parts.values()).item() == pytest.approx(whole.sum(-1).mean().item(), rel=1e-4)
    assert parts["kl/co"].item() == pytest.approx(whole[..., :S].sum(-1).mean().item(), rel=1e-4)
    latent = without_recall(trace)
    assert torch.equal(latent.stoch[..., :S, :], trace.latent.stoch[..., :S, :])
    with draws.drawing(draws.Fixed()):
        mode = without_recall(trace).stoch[..., S:, :].argmax(-1)
    assert torch.equal(mode, trace.prior[..., S:, :].argmax(-1))


def test_one_hot_table_and_plain_encoder_make_one_model() -> None:
    plain = fused(memory(recall=recall(actions=ActionEncoder(A, E)), sight=across_episodes))
    table = fused(memory(recall=recall(actions=OneHotActionEncoder(A, E)), sight=across_episodes))
    table.load_state_dict(plain.state_dict())
    with draws.drawing(draws.Fixed()):
        one, two = (model.observe(model.initial(2), *steps(20)) for model in (plain, table))
    assert torch.allclose(one.post, two.post, atol=1e-4)
    assert torch.allclose(one.targets["memory"], two.targets["memory"], atol=1e-4)


def test_attention_defaults_to_the_pair() -> None:
    assert isinstance(fused().attention, PairAttention)


def test_staleness_by_hand() -> None:
    """Two of six keys are selected; of the stale ones another two are nearest, one of them the same."""
    fresh = torch.eye(4)[[0, 0, 1, 2, 3, 1]][None]
    stale = torch.eye(4)[[0, 1, 0, 2, 3, 1]][None]
    query, mask = torch.eye(4)[[0]][None], torch.ones(1, 1, 6, dtype=torch.bool)
    found = staleness(query, stale, fresh, mask, count=2)
    assert found["stale/cosine"].item() == pytest.approx(4 / 6)
    assert found["stale/overlap"].item() == pytest.approx(1 / 3)
    mask[..., 1:3] = False
    assert staleness(query, stale, fresh, mask, count=1)["stale/overlap"] == 1
