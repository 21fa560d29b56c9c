"""The microscope's measures, each against brute force, float64 or a table made by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from wm_run.microscope import errors, probe
from wm_run.microscope.calibration import numbers, reliability
from wm_run.microscope.codes import codes
from wm_run.microscope.lags import gradient, powers
from wm_run.microscope.promised import Ahead, promised
from wm_run.microscope.recalled import recalled
from wm_run.microscope.returns import followed


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ---- errors


def test_errors_by_horizon_are_means_over_the_rows_that_reach_it() -> None:
    true, said = draw(6, 4, 2, 3), draw(6, 4, 2, 3, seed=1)
    valid = draw(6, 4, seed=2) > 0.3
    valid[:, 3] = False
    found = errors.by_horizon(errors.wrong(true, said, False), valid)
    for h in range(4):
        rows = [b for b in range(6) if valid[b, h]]
        each = [
            sum((x - y) ** 2 for x, y in zip(true[b, h].flatten(), said[b, h].flatten(), strict=True)) / 6 for b in rows
        ]
        assert found[h] == (pytest.approx(float(sum(each) / len(rows))) if rows else None)


def test_of_discrete_values_the_share_that_is_wrong_counts_and_the_middle_is_the_most_frequent() -> None:
    true = torch.tensor([[[1.0, 2.0], [1.0, 3.0]], [[1.0, 3.0], [0.0, 3.0]]])
    assert errors.wrong(true, torch.tensor([[[1.0, 3.0]]]).expand_as(true), True).tolist() == [[0.5, 0.0], [0.0, 0.5]]
    assert errors.middle(true, True).tolist() == [[[1.0, 3.0]]]
    assert errors.middle(true, False).tolist() == [[[0.75, 2.75]]]


def test_what_comes_after_the_first_reset_is_not_asked() -> None:
    first = torch.tensor([[0, 1, 0, 0, 1, 0], [1, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]]) > 0
    assert errors.ahead(first, 2).int().tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]


# ---- probes


@pytest.mark.parametrize(("n", "features"), [(40, 7), (12, 30)])
def test_ridge_is_where_its_loss_has_no_slope_whichever_system_is_smaller(n: int, features: int) -> None:
    x, y = draw(n, features) * 3 + 1, draw(n, 2, seed=1)
    one = probe.fit(x, y, 2.0, classes=False)
    weight, bias = one.weight.clone().requires_grad_(), one.bias.clone().requires_grad_()
    z = (x - x.mean(0)) / x.std(0, unbiased=False)
    loss = (y - z @ weight - bias).square().sum() + 2.0 * weight.square().sum()
    for slope in torch.autograd.grad(loss, [weight, bias]):
        assert slope.abs().max() < 1e-9


def test_logistic_regression_is_where_its_loss_has_no_slope() -> None:
    x = draw(60, 5)
    y = torch.eye(3, dtype=torch.float64)[(x[:, :3] + 0.5 * draw(60, 3, seed=4)).argmax(-1)]
    one = probe.fit(x, y, 1.0, classes=True)
    weight, bias = one.weight.clone().requires_grad_(), one.bias.clone().requires_grad_()
    z = (x - x.mean(0)) / x.std(0, unbiased=False)
    loss = torch.nn.functional.cross_entropy(z @ weight + bias, y.argmax(-1), reduction="sum")
    loss = loss + weight.square().sum() / 2 + 1e-6 * bias.square().sum()
    for slope in torch.autograd.grad(loss, [weight, bias]):
        assert slope.abs().max() < 1e-4
    assert (one(x).argmax(-1) == y.argmax(-1)).double().mean() > 0.7


@pytest.mark.parametrize("classes", [True, False])
def test_a_probe_finds_what_features_hold_and_nothing_where_they_hold_nothing(classes: bool) -> None:
    rows = torch.arange(64).repeat_interleave(8)
    told = draw(512, 3)
    told = torch.eye(3, dtype=torch.float64)[told.argmax(-1)] if classes else told
    mixed = torch.cat([told @ draw(3, 10, seed=1), draw(512, 10, seed=2)], -1)
    scores = {}
    for name, features in (("held", mixed), ("noise", draw(512, 20, seed=3))):
        fit, test = rows < 32, rows >= 32
        one = probe.choose(features[fit], told[fit], rows[fit])
        said, y = one(features[test])[None], told[test][None]
        valid = torch.ones(y.shape[:2], dtype=torch.bool)
        found = probe.score(said, y, told[fit].mean(0), valid, classes)
        scores[name] = sum(one for one in found if one is not None) / len(found)
    chance = 1 / 3 if classes else 0
    assert scores["held"] > 0.95 and scores["noise"] == pytest.approx(chance, abs=0.1)


def test_the_penalty_is_chosen_by_rows_that_were_left_out() -> None:
    rows = torch.arange(120).repeat_interleave(2)
    x = draw(240, 150)
    assert probe.choose(x, draw(240, 1, seed=1), rows).penalty == max(probe.PENALTIES)  # nothing to be found
    assert probe.choose(x, x[:, :1] * 2, rows).penalty == min(probe.PENALTIES)


def test_features_that_never_change_have_no_say() -> None:
    x = torch.cat([7 + 1e-9 * draw(30, 1, seed=2), draw(30, 2)], -1)  # but for what a sum in another order changes
    one = probe.fit(x, draw(30, 1, seed=1), 1.0, classes=False)
    moved = x.clone()
    moved[:, 0] = 1e6
    assert torch.equal(one(x), one(moved))


def test_one_hots_are_classes_and_all_else_is_numbers() -> None:
    assert probe.is_classes(torch.eye(3)[None]) and not probe.is_classes(torch.ones(4, 1))
    assert not probe.is_classes(torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
    assert not probe.is_classes(torch.tensor([[0.5, 0.5]]))


def test_scores_by_horizon_count_the_rows_that_reach_it() -> None:
    told = torch.eye(2)[torch.tensor([[0, 1], [1, 1], [0, 0]])]
    said = torch.eye(2)[torch.tensor([[0, 1], [0, 0], [0, 0]])]
    valid = torch.tensor([[True, True], [True, False], [True, False]])
    assert probe.score(said, told, told.mean((0, 1)), valid, True) == [pytest.approx(2 / 3), 1.0]
    assert probe.score(said, told, told.mean((0, 1)), valid & False, True) == [None, None]
    numbers_ = draw(5, 3, 2)
    mean = draw(2, seed=3)
    found = probe.score(draw(5, 3, 2, seed=1), numbers_, mean, torch.ones(5, 3, dtype=torch.bool), False)
    for h in range(3):
        error = sum(float((draw(5, 3, 2, seed=1)[b, h] - numbers_[b, h]).square().sum()) for b in range(5))
        spread = sum(float((mean - numbers_[b, h]).square().sum()) for b in range(5))
        assert found[h] == pytest.approx(1 - error / spread)


# ---- calibration


def test_reliability_is_what_a_loop_over_predictions_finds() -> None:
    said = torch.rand(200, generator=torch.Generator().manual_seed(0))
    said[0], said[1] = 1.0, 0.0
    came = torch.rand(200, generator=torch.Generator().manual_seed(1)) < said**2
    found = reliability(said, came)
    gap = 0.0
    for k in range(10):
        mine = [i for i in range(200) if min(int(float(said[i].double()) * 10), 9) == k]
        assert found["count"][k] == len(mine)
        if mine:
            mean, share = (sum(float(x[i]) for i in mine) / len(mine) for x in (said, came))
            assert found["said"][k] == pytest.approx(mean) and found["came"][k] == pytest.approx(share)
            gap += len(mine) / 200 * abs(mean - share)
    assert found["ece"] == pytest.approx(gap)
    assert found["brier"] == pytest.approx(
        sum((float(s) - float(c)) ** 2 for s, c in zip(said, came, strict=True)) / 200
    )


def test_tenths_hold_equally_many_predictions_in_their_order() -> None:
    said, came = draw(200), draw(200, seed=1)
    found = numbers(said, came)
    order = said.argsort()
    assert found["count"] == [20] * 10
    for k in range(10):
        mine = order[20 * k : 20 * k + 20]
        assert found["said"][k] == pytest.approx(said[mine].mean().item())
        assert found["came"][k] == pytest.approx(came[mine].mean().item())
    assert found["bias"] == pytest.approx((said - came).mean().item())
    assert found["correlation"] == pytest.approx(torch.corrcoef(torch.stack([said, came]))[0, 1].item())


def test_predictions_that_are_all_alike_are_one_bin() -> None:
    found = numbers(torch.zeros(30), torch.ones(30))
    assert found["count"] == [30] and found["bias"] == -1 and found["correlation"] is None
    assert numbers(torch.zeros(0), torch.zeros(0))["mae"] is None
    assert reliability(torch.zeros(0), torch.zeros(0) > 0)["brier"] is None


# ---- returns


def test_returns_are_sums_up_to_an_end_and_unknown_before_a_limit_or_the_end_of_the_row() -> None:
    rng = torch.Generator().manual_seed(0)
    reward = torch.randn(30, 12, generator=rng, dtype=torch.float64)
    last = torch.rand(30, 12, generator=rng) < 0.25
    terminal = last & (torch.rand(30, 12, generator=rng) < 0.6)
    found, known = followed(reward, last, terminal, 0.9)
    counts = {True: 0, False: 0}
    for b in range(30):
        for t in range(12):
            end = next((k for k in range(t, 12) if last[b, k]), None)
            right = end is not None and end != t and bool(terminal[b, end])
            counts[right] += 1
            assert bool(known[b, t]) == right
            if right:
                total = sum(0.9 ** (k - t - 1) * float(reward[b, k]) for k in range(t + 1, end + 1))
                assert found[b, t] == pytest.approx(total)
            else:
                assert found[b, t] == 0
    assert min(counts.values()) > 50


# ---- own dreams


def test_own_dreams_are_asked_while_in_reality_nothing_has_ended() -> None:
    own, recorded = (Ahead(draw(40, 5, seed=k), draw(40, 5, seed=k + 1).sigmoid()) for k in (0, 2))
    came = Ahead(draw(40, 5, seed=4), (draw(40, 5, seed=5) < 1).double())
    begun = draw(40, seed=6) < 1
    found = promised(own, recorded, came, begun)
    for name, one in (("own", own), ("recorded", recorded), ("came", came)):
        sums = [0.0, 0.0]
        for h in range(5):
            rows = [b for b in range(40) if begun[b] and all(came.going[b, k] for k in range(h))]
            assert found["rows"][h] == len(rows) > 5
            for i, (what, values) in enumerate((("reward", one.reward), ("end", 1 - one.going))):
                mean = sum(float(values[b, h]) for b in rows) / len(rows)
                assert found[what][name][h] == pytest.approx(mean)
                sums[i] += mean
        assert [found[f"{what}_{name}"] for what in ("reward", "end")] == pytest.approx(sums)


# ---- latents


def test_codes_are_counted_as_by_a_loop() -> None:
    post, prior = (draw(50, 3, 4, seed=k).mul(2).log_softmax(-1) for k in (0, 1))
    post[:, 1] = prior[:, 1]  # tells nothing
    found = codes(post, prior)
    kl = [sum(float((post[n, s].exp() * (post[n, s] - prior[n, s])).sum()) for n in range(50)) / 50 for s in range(3)]
    assert found["kl"] == pytest.approx(sorted(kl, reverse=True)) and found["dead_latents"] == 1
    used = {(s, int(post[n, s].argmax())) for n in range(50) for s in range(3)}
    assert found["dead_codes"] == pytest.approx(1 - len(used) / 12)


# ---- memory


def test_recalled_steps_are_counted_as_by_a_loop() -> None:
    rng = torch.Generator().manual_seed(0)
    age = torch.randint(1, 700, (4, 5, 6), generator=rng)
    age[0, 0] = torch.tensor([1, 2, 4, 8, 512, 511])  # at the edges
    earlier, ok = (torch.rand(4, 5, 6, generator=rng) < share for share in (0.4, 0.7))
    ok[0, 0] = True
    found = recalled(age, earlier, ok)
    edges = found["edges"]
    share = [0] * len(edges)
    for a in age[ok].tolist():
        share[max(k for k, edge in enumerate(edges) if edge <= a)] += 1
    assert found["share"] == pytest.approx([one / int(ok.sum()) for one in share])
    assert found["earlier"] == pytest.approx(sum(earlier[ok].tolist()) / int(ok.sum()))
    assert found["found"] == pytest.approx(int(ok.sum()) / 20)


def test_a_memory_that_recalls_nothing_has_no_ages() -> None:
    nothing = torch.zeros(2, 3, 4)
    found = recalled(nothing.long(), nothing > 0, nothing > 0)
    assert found["median_age"] is None and found["earlier"] is None and found["found"] == 0


# ---- the past


def test_the_gradient_of_the_past_is_the_norm_of_the_jacobian() -> None:
    weights, far = draw(5, 3, 4), draw(2, 4, seed=1)

    def state(embed: dict[str, Tensor]) -> Tensor:
        seen = torch.einsum("btd,tde->be", embed["obs"], weights)
        return torch.tanh(seen + embed["far"][:, 0] @ far) + 0 * embed["far"].detach().sum()

    embed = {"obs": draw(3, 5, 3, seed=2), "far": draw(3, 5, 2, seed=3), "unused": draw(3, 5, 2, seed=4)}
    expected = torch.zeros(5, dtype=torch.float64)
    for name in ("obs", "far"):
        jacobian = torch.autograd.functional.jacobian(
            lambda x, name=name: state(embed | {name: x}).sum(0), embed[name]
        )  # (e, B, T, d): rows do not mix
        expected += jacobian.square().sum((0, 3)).mean(0)
    found = gradient(state, embed, directions=800)
    assert torch.allclose(found, expected.sqrt(), rtol=0.1)
    assert torch.equal(gradient(state, embed, seed=3), gradient(state, embed, seed=3))


def test_lengths_of_the_past_double_up_to_the_context() -> None:
    assert [powers(n) for n in (1, 2, 5, 8)] == [[1], [1, 2], [1, 2, 4, 5], [1, 2, 4, 8]]
