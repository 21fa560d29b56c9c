"""Optimisers against torch and hand-computed steps; what clips, and how moments come back."""

import pytest
import torch
from torch import nn
from wm_core.errors import UserError
from wm_core.heads import PolicyHead
from wm_core.optim import Adam, AdaptiveClip, LaProp, NormClip, Together, total


def test_laprop_and_clipping_by_a_three_step_hand_example():
    weight = nn.Parameter(torch.tensor([2.0, -1.0], dtype=torch.float64))
    rule = LaProp([weight], lr=0.1, clip=AdaptiveClip(0.3), warmup=2)
    p, m, v = weight.detach().clone(), torch.zeros(2).double(), torch.zeros(2).double()
    for step, grad in enumerate([[10.0, 1.0], [0.1, -0.2], [-3.0, 4.0]]):
        g = torch.tensor(grad, dtype=torch.float64)
        rule.apply([g.clone()])
        bound = 0.3 * max(1e-3, p.norm().item())
        g = g / max(1.0, g.norm().item() / bound)
        v = 0.999 * v + 0.001 * g * g
        m = 0.9 * m + 0.1 * g / ((v / (1 - 0.999 ** (step + 1))).sqrt() + 1e-20)
        p = p - 0.1 * min(1, step / 2) * m / (1 - 0.9 ** (step + 1))
        assert torch.allclose(weight.detach(), p, rtol=1e-5), step


@pytest.mark.parametrize("discrete, continuous, rows", [((), 2, [2, 2]), ((3, 4), 0, [3, 4]), ((3,), 2, [3, 2, 2])])
def test_a_policys_components_are_clipped_as_tensors_of_their_own(discrete, continuous, rows):
    """As if the last layer were several; gradients that differ a thousandfold in size, of whole and part."""
    head = PolicyHead(
        discrete=discrete, continuous=continuous, widths={"deter": 5}, units=4, layers=1, reads=("deter",)
    )
    generator = torch.Generator().manual_seed(0)
    params = list(head.parameters())
    with torch.no_grad():
        for p in params:
            p.add_(torch.randn(p.shape, generator=generator))
    grads = [torch.randn(p.shape, generator=generator) for p in params]
    for grad in grads[-2:]:
        for part, size in zip(grad.split(rows), [1.0, 1e3, 1e-3], strict=False):
            part.mul_(size)

    def parts(tensors):
        return [x.clone() for t in tensors[:-2] for x in [t]] + [x.clone() for t in tensors[-2:] for x in t.split(rows)]

    expected = parts(grads)
    whole = AdaptiveClip(0.3)([p.detach() for p in parts(params)], expected)
    joint = [grad.clone() for grad in grads]
    AdaptiveClip(0.3)(params, joint)
    norm = AdaptiveClip(0.3, apart=head.components())(params, grads)
    assert norm.item() == pytest.approx(whole.item())
    for mine, theirs in zip(parts(grads), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=0)
    assert not torch.allclose(joint[-2], grads[-2])


def test_a_policy_of_one_component_is_clipped_whole():
    head = PolicyHead(discrete=(3,), continuous=0, widths={"deter": 5}, units=4, layers=1, reads=("deter",))
    assert not AdaptiveClip(0.3, apart=head.components()).rows


def test_adam_equals_torch():
    one, two = (nn.Parameter(torch.ones(5)) for _ in range(2))
    mine = Adam([one], lr=0.01, clip=NormClip(2.0))
    theirs = torch.optim.Adam([two], lr=0.01)
    for seed in range(5):
        grad = torch.randn(5, generator=torch.Generator().manual_seed(seed)) * 3
        mine.apply([grad.clone()])
        two.grad = grad.clone()
        torch.nn.utils.clip_grad_norm_([two], 2.0)
        theirs.step()
    assert torch.allclose(one, two, atol=1e-6)


def test_a_split_optimiser_equals_a_joint_one():
    def run(split):
        torch.manual_seed(0)
        a, b = nn.Linear(3, 3), nn.Linear(3, 1)
        params = [list(a.parameters()), list(b.parameters())]
        rule = (
            Together(a=LaProp(params[0], lr=0.01), b=LaProp(params[1], lr=0.01))
            if split
            else LaProp(params[0] + params[1], lr=0.01)
        )
        for _ in range(3):
            rule.step(b(a(torch.ones(2, 3)).tanh()).square().sum())
        return a.weight.detach(), b.weight.detach()

    assert all(torch.equal(x, y) for x, y in zip(run(True), run(False), strict=True))


def test_optimiser_state_round_trip_continues_exactly():
    def start():
        torch.manual_seed(0)
        layer = nn.Linear(4, 1)
        return layer, LaProp(layer.parameters(), lr=0.01, warmup=3)

    def run(layer, rule, steps):
        for _ in range(steps):
            rule.step(layer(torch.ones(2, 4)).square().sum())

    layer, rule = start()
    run(layer, rule, 6)
    half, first = start()
    run(half, first, 3)
    again, second = start()
    again.load_state_dict(half.state_dict())
    second.load_state_dict(first.state_dict(dict(half.named_parameters())), dict(again.named_parameters()))
    run(again, second, 3)
    assert torch.equal(layer.weight, again.weight)


def moved(order, split=False):
    """Parameters of one shape by name, and a rule with them in an order, or two rules, after an update that moves each."""
    torch.manual_seed(0)
    model = nn.ParameterDict({name: torch.randn(2) for name in "abcd"})
    params = [model[name] for name in order]
    kinds = {"one": Adam(params[:2], lr=0.1), "two": LaProp(params[2:], lr=0.1)}
    rule = Together(**kinds) if split else LaProp(params, lr=0.1)
    rule.step(sum(k * (model[name] ** 2).sum() for k, name in enumerate("abcd", 1)))
    return dict(model.named_parameters()), rule


def moments(named, rule):
    """First and second by the parameter's name."""
    names = {id(p): name for name, p in named.items()}
    every = getattr(rule, "rules", {"": rule}).values()
    return {names[id(p)]: (f, s) for r in every for p, f, s in zip(r.params, r.first, r.second, strict=True)}


@pytest.mark.parametrize("split", [False, True])
def test_moments_find_their_parameters_in_any_order(split):
    """Of two parameters of one shape neither takes the other's, be the rule built in another order."""
    named, rule = moved("abcd", split)
    again, other = moved("badc", split)
    expected = moments(named, rule)
    for tensor in other.tensors():
        tensor.zero_()
    other.load_state_dict(rule.state_dict(named), again)
    for name, found in moments(again, other).items():
        assert all(torch.equal(one, two) and one.any() for one, two in zip(found, expected[name], strict=True))


def test_lists_of_an_earlier_version_are_read_in_the_order_of_the_parameters():
    _, rule = moved("abcd")
    old = {"first": [one.clone() for one in rule.first], "second": rule.second, "count": rule.count}
    again, other = moved("abcd")
    for tensor in other.tensors():
        tensor.zero_()
    other.load_state_dict(old, again)
    assert all(torch.equal(one, two) for one, two in zip(other.tensors(), rule.tensors(), strict=True))


def test_an_optimiser_that_does_not_fit_is_refused_and_changes_nothing():
    named, rule = moved("abcd")
    good = rule.state_dict(named)
    lacking = good | {"second": {name: one for name, one in good["second"].items() if name != "b"}}
    turned = good | {"second": good["second"] | {"b": torch.ones(3)}}
    older = {"first": [*good["first"].values()], "second": [*good["second"].values()][:3], "count": rule.count}
    before = [one.clone() for one in rule.tensors()]
    for state, said in (
        (lacking, r"its moment of 'b' is missing there and \(2,\) here; go on with"),
        (good | {"first": good["first"] | {"e": torch.ones(2)}}, "moment of 'e' is .* there and missing here"),
        (turned, r"'b' is \(3,\) there and \(2,\) here"),
        (older, "saved with 3 parameters and has 4"),
    ):
        with pytest.raises(UserError, match=said):
            rule.load_state_dict(state, named)
        assert all(torch.equal(one, two) for one, two in zip(rule.tensors(), before, strict=True))
    with pytest.raises(UserError, match=r"was saved as \['one'\] and is \['one', 'two'\]"):
        moved("abcd", split=True)[1].load_state_dict({"one": good}, named)


def test_loss_names_and_scales_must_match():
    with pytest.raises(KeyError, match="image"):
        total({"image": torch.ones(2)}, {"vector": 1.0})
