"""Selection and attention against the plain lines. Sizes: B batch, T queries, C columns, K selected, E embed, H heads."""

import math

import pytest
import torch
from torch import Tensor
from wm_core import draws
from wm_memory import bank, plain
from wm_memory.attention import Chosen, RecallBlock, attend_folded, attend_gathered
from wm_memory.recall import (
    ActionEncoder,
    AgePositions,
    NoActions,
    NoPositions,
    OneHotActionEncoder,
    Positions,
    RankPositions,
    Recall,
    Repeat,
    cosine,
    select,
    sinusoids,
)

E, A, H = 16, 3, 2


def case(steps: int, columns: int, seed: int = 0, share: float = 0.6) -> tuple[Tensor, ...]:
    """query, keys, actions, mask in float64."""
    torch.manual_seed(seed)
    query, keys = torch.randn(2, steps, E).double(), torch.randn(2, columns, E).double()
    actions = torch.nn.functional.one_hot(torch.randint(A, (2, columns)), A).double()
    return query, keys, actions, torch.rand(2, steps, columns) < share


@pytest.mark.parametrize("positions", [RankPositions(4, E), AgePositions(30, E), NoPositions(E)])
@pytest.mark.parametrize(("steps", "columns"), [(9, 20), (2, 20), (3, 2)])
def test_recall_equals_its_plain_lines_forward_and_backward(positions: Positions, steps: int, columns: int) -> None:
    # 9 x 4 keys exceed 20 columns (folded), 2 x 4 do not (gathered), 2 columns are fewer than the keys wanted
    recall = Recall(width=E, action=A, count=4, heads=H, positions=positions).double().eval()
    query, keys, actions, mask = case(steps, columns)
    mask[0, 0] = False  # one query sees nothing
    found = []
    for function in (recall, lambda *inputs: plain.recall(recall, *inputs)):
        leaves = [query.clone().requires_grad_(), keys.clone().requires_grad_()]
        f = function(*leaves, actions, mask)
        params = [p for p in recall.parameters() if p.requires_grad]
        grads = torch.autograd.grad((f * torch.arange(f.numel()).reshape(f.shape).sin()).sum(), leaves + params)
        found.append([f, *grads])
    for one, two in zip(*found, strict=True):
        assert torch.allclose(one, two, atol=1e-10)


@pytest.mark.parametrize("table_rows", [6, 11])
def test_folded_equals_gathered_forward_and_backward(table_rows: int) -> None:
    torch.manual_seed(1)
    block = RecallBlock(E, heads=H).double().eval()
    x, tokens = torch.randn(2, 7, E).double(), torch.randn(2, 12, E).double()
    table = sinusoids(table_rows, E).double()
    index, ok = select(torch.rand(2, 7, 12), torch.rand(2, 7, 12) < 0.4, 6)
    chosen = Chosen(index, ok, torch.randint(table_rows, index.shape))
    row = torch.arange(2)[:, None, None]
    found = []
    for folded in (True, False):
        leaf = tokens.clone().requires_grad_()
        if folded:
            heard, weights = attend_folded(block, x, leaf, chosen, table)
        else:
            heard, weights = attend_gathered(block, x, leaf[row, index] + table[chosen.rows], ok)
        some = ok.any(-1)
        loss = (heard.sin() * some[..., None]).sum()
        grads = torch.autograd.grad(loss, [leaf, *block.query.parameters(), *block.keyvalue.parameters()])
        found.append([heard[some], weights.transpose(1, 2)[some], *grads])
    for one, two in zip(*found, strict=True):
        assert torch.allclose(one, two, atol=1e-12)


def test_selection_equals_sorting() -> None:
    torch.manual_seed(2)
    similarity, mask = torch.rand(3, 5, 40) * 2 - 1, torch.rand(3, 5, 40) < 0.3
    mask[0, 0] = False
    mask[0, 1, 3:] = False
    index, ok = select(similarity, mask, 8)
    for b in range(3):
        for t in range(5):
            wanted = plain.choose(similarity[b, t], mask[b, t], 8).tolist()
            assert index[b, t][ok[b, t]].tolist() == wanted  # in order of time
            assert len(set(index[b, t].tolist())) == 8  # slots never share a column
            assert not ok[b, t, len(wanted) :].any()


def test_among_equals_the_latest_are_chosen_whatever_float_noise_says() -> None:
    similarity = torch.tensor([0.7, 0.8, 0.8, 0.2, 0.8, 0.8]) + torch.tensor([0, 1e-7, 0, 0, -1e-7, 0])
    index, _ = select(similarity[None, None], torch.ones(1, 1, 6, dtype=torch.bool), 2)
    assert index.flatten().tolist() == [4, 5]


def test_cosine_is_the_cosine_and_has_no_gradient() -> None:
    query, keys = torch.randn(2, 3, E, requires_grad=True), torch.randn(2, 5, E, requires_grad=True)
    found = cosine(query, keys)
    wanted = torch.cosine_similarity(query[:, :, None], keys[:, None], dim=-1)
    assert torch.allclose(found, wanted, atol=1e-6)
    assert not found.requires_grad
    assert cosine(query * 0, keys).abs().max() == 0  # nothing is like nothing, and nothing is not NaN


def test_an_unseen_key_changes_nothing_and_a_seen_one_does() -> None:
    recall = Recall(width=E, action=A, count=30, heads=H).double().eval()
    query, keys, actions, mask = case(6, 20)
    keys.requires_grad_()
    recall(query, keys, actions, mask)[0, 2].square().sum().backward()
    reached = keys.grad[0].abs().sum(-1) > 0
    assert torch.equal(reached, mask[0, 2])


def test_order_matters_with_positions_and_not_without() -> None:
    query, keys, actions, _ = case(1, 8)
    mask = torch.ones(2, 1, 8, dtype=torch.bool)
    turned = torch.arange(7, -1, -1)
    for positions, matters in ((RankPositions(8, E), True), (AgePositions(9, E), True), (NoPositions(E), False)):
        recall = Recall(width=E, action=A, count=8, heads=H, positions=positions).double().eval()
        one = recall(query, keys, actions, mask)
        two = recall(query, keys[:, turned], actions[:, turned], mask)
        assert ((one - two).abs().max() > 1e-6) == matters


def test_rank_one_is_the_oldest_selected() -> None:
    recall = Recall(width=E, action=A, count=3, heads=H).eval()
    similarity = torch.tensor([[[0.1, 0.9, 0.3, 0.8, 0.7, 0.2]]])
    reading = recall.read(
        torch.randn(1, 1, E),
        torch.randn(1, 6, E),
        torch.zeros(1, 6, A),
        torch.ones(1, 1, 6).bool(),
        similarity=similarity,
    )
    assert reading.chosen.index.tolist() == [[[1, 3, 4]]]
    assert reading.chosen.rows.tolist() == [[[0, 1, 2]]]  # row 0 of the table is position 1
    assert torch.allclose(recall.positions.table[0, :2], torch.tensor([math.sin(1), math.cos(1)]))


def test_actions_matter_with_an_encoder_and_not_without() -> None:
    query, keys, actions, mask = case(3, 8)
    for encoder, matters in ((None, True), (NoActions(), False)):
        recall = Recall(width=E, action=A, count=8, heads=H, actions=encoder).double().eval()
        gap = recall(query, keys, actions, mask) - recall(query, keys, actions.roll(1, -1), mask)
        assert (gap.abs().max() > 1e-6) == matters


def test_one_hot_actions_are_encoded_as_one_by_one_in_training_and_evaluation() -> None:
    torch.manual_seed(3)
    plain, table = ActionEncoder(A, E).double(), OneHotActionEncoder(A, E).double()
    table.load_state_dict(plain.state_dict())
    actions = torch.nn.functional.one_hot(torch.randint(A, (4, 9)), A).double()
    actions[0, :3] = 0  # reset records have no action
    for _ in range(2):
        found = []
        for encoder in (plain, table):
            out = encoder(actions)
            grads = torch.autograd.grad(out.sin().sum(), list(encoder.parameters()))
            found.append([out, *grads, *encoder.state_dict().values()])
        for one, two in zip(*found, strict=True):
            assert torch.allclose(one, two, atol=1e-9)
        plain.eval(), table.eval()


@pytest.mark.parametrize("encoder", [ActionEncoder, OneHotActionEncoder])
def test_both_ways_learn_the_same_from_the_columns_that_may_be_seen(
    encoder: type[ActionEncoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training, where f_a has batch statistics: values, gradients and what the running statistics become, in float64;
    what no query may see is not in them."""
    found = []
    for gathers in (True, False):
        torch.manual_seed(0)
        recall = Recall(width=E, action=A, count=4, heads=H, dropout=0.0, actions=encoder(A, E)).double().train()
        monkeypatch.setattr(recall, "gathers", lambda *_, way=gathers: way)
        query, keys, actions, mask = case(5, 30)
        mask[:, :, 20:] = False  # padding, and columns of other episodes
        actions[:, 20:] = 0
        keys.requires_grad_()
        f = recall(query, keys, actions, mask)
        f.square().sum().backward()
        grads = [p.grad for p in recall.parameters() if p.grad is not None]
        found.append([f.detach(), keys.grad, *grads, *recall.buffers()])
        expected = recall.actions[0](actions[mask.any(1)]).mean(0)
        assert torch.allclose(recall.actions[1].running_mean, 0.1 * expected, atol=1e-12)
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=1e-10, rtol=1e-10)


def test_statistics_of_nothing_leave_the_running_ones() -> None:
    encoder = OneHotActionEncoder(A, E).train()
    before = [x.clone() for x in encoder.buffers() if x.is_floating_point()]
    out = encoder(torch.zeros(2, 3, A), torch.zeros(2, 3, dtype=torch.bool))
    assert out.isfinite().all()
    assert all(x.equal(y) for x, y in zip(before, [x for x in encoder.buffers() if x.is_floating_point()], strict=True))


def test_repeat_equals_forty_copies_of_the_query() -> None:
    repeat = Repeat(width=E, action=A, count=40, heads=H).double().eval()
    query, keys, actions, mask = case(3, 8)
    plain = Recall(width=E, action=A, heads=H, positions=NoPositions(E), actions=NoActions()).double().eval()
    plain.load_state_dict({k: v for k, v in repeat.state_dict().items() if not k.startswith("actions")})
    for t in range(3):
        copies = query[:, t : t + 1].expand(-1, 40, -1)
        wanted = plain(query[:, t : t + 1], copies, torch.zeros(2, 40, A).double(), torch.ones(2, 1, 40).bool())
        assert torch.allclose(repeat(query, keys, actions, mask)[:, t : t + 1], wanted, atol=1e-12)


def test_dropout_is_drawn_from_the_source_in_force_and_off_in_evaluation() -> None:
    recall = Recall(width=E, action=A, count=4, heads=H, dropout=0.5, actions=NoActions()).double()
    inputs = case(9, 20)
    runs = []
    for seed in (0, 0, 1):
        with draws.drawing(draws.Generator(seed)):
            runs.append(recall(*inputs))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    recall.eval()
    assert torch.equal(recall(*inputs), recall(*inputs))


def test_keys_and_values_learn() -> None:
    recall = Recall(width=E, action=A, count=4, heads=H)
    query, keys, actions, mask = case(9, 20)
    recall(query.float(), keys.float(), actions.float(), mask).sin().sum().backward()
    for block in recall.stack():
        k, v = block.keyvalue.weight.grad.chunk(2)
        assert k.abs().max() > 0 and v.abs().max() > 0 and block.query.weight.grad.abs().max() > 0
    assert recall.actions[0].weight.grad.abs().max() > 0


def test_bad_sizes_are_named() -> None:
    with pytest.raises(ValueError, match="16 features cannot be split among 3"):
        Recall(width=E, action=A, heads=3)
    with pytest.raises(ValueError, match="dropout"):
        Recall(width=E, action=A, heads=H, dropout=1.0)


def test_ages_count_steps_back_from_each_query() -> None:
    assert bank.ages(1, 4).tolist() == [[3, 2, 1, 0]]
