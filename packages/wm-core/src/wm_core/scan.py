"""The posterior of a recurrent state-space model over T steps, with its gradient written out.

Through autograd, T steps of N rows cost T small products for every weight gradient and a node for every operation.
Here the loop back in time moves the gradient of the state alone, and every weight gradient is one product over all
T * N rows after it. Derivatives of what is elementwise are prepared for all steps at once.

Sizes: B rows, T steps, R branches (one, or two that share their state), D deter of a branch, H hidden, G blocks of each
branch, W = R * D + S * K the whole state, S x K stochastic of all branches together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from wm_core.blocks import BlockGRU
from wm_core.distributions import sample_mixed
from wm_core.norm import EPS, root_of
from wm_core.precision import wide


def plain_scan(
    branches: Sequence[Any], state: Tensor, driven: Tensor, seen: Tensor, keep: Tensor, noise: Tensor, unimix: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The loop as it reads, for any cell; what `posterior_scan` is checked against.

    A branch has a `cell` and a `posterior`. state (B, W) before the first step; driven (T, B, R, D) and
    seen (T, B, R, H) from their `drive`; keep (T, B, 1), 0 at a reset; noise (T, B, S, K), exponential.
    Gives deter (T, B, R*D), stoch (T, B, S, K) with straight-through gradients, and probabilities (T, B, S, K) of the
    posterior before the uniform is mixed in.
    """
    width = state.shape[1] - noise.shape[2] * noise.shape[3]
    shape = noise.shape[2:]
    deters, stochs, found = [], [], []
    for t, kept in enumerate(keep.unbind()):
        state = state * kept
        deter, stoch = state[:, :width], state[:, width:]
        parts = [
            branch.cell(own, (deter, stoch), driven[t, :, r])
            for r, (branch, own) in enumerate(zip(branches, deter.chunk(len(branches), -1), strict=True))
        ]
        flat = [
            branch.posterior(part, seen[t, :, r]) for r, (branch, part) in enumerate(zip(branches, parts, strict=True))
        ]
        deter = torch.cat(parts, -1)
        probs = F.softmax(torch.cat(flat, -1).unflatten(-1, shape).to(state.dtype), -1)
        sample = sample_mixed(probs, noise[t], unimix)
        state = torch.cat([deter, sample.flatten(-2)], -1)
        deters.append(deter)
        stochs.append(sample)
        found.append(probs)
    return torch.stack(deters), torch.stack(stochs), torch.stack(found)


def posterior_scan(
    branches: Sequence[Any], state: Tensor, driven: Tensor, seen: Tensor, keep: Tensor, noise: Tensor, unimix: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`plain_scan` with its gradient written out, where every cell is a BlockGRU over (deter, stoch); else that itself.

    The gradient is first order only.
    """
    if not all(type(branch.cell) is BlockGRU and len(branch.cell.inputs) == 2 for branch in branches):
        return plain_scan(branches, state, driven, seen, keep, noise, unimix)
    kind = state.device.type
    low = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else state.dtype
    weights = [weight.to(low) for weight in packed(branches)]
    with torch.autocast(kind, enabled=False):
        found: tuple[Tensor, Tensor, Tensor] = _Scan.apply(state, driven, seen, keep, noise, unimix, *weights)  # type: ignore[no-untyped-call]
    return found


def packed(branches: Sequence[Any]) -> list[Tensor]:
    """The weights of all branches side by side, in the order that `_Scan` takes them.

    inputs (2RH, W), block-diagonal over deter and stoch, its bias and scale (2R, H); shared (R, 2H, D); own (RG, D/G,
    D/G), scale (R, G, 1, D/G); gates (RG, D/G, 3D/G) and bias; posterior (R, D, H), scale (R, 1, H); out (R, H, S*K/R)
    and bias.
    """
    cells, posteriors = [branch.cell for branch in branches], [branch.posterior for branch in branches]

    def side(parts: list[Tensor]) -> Tensor:
        return parts[0][None] if len(parts) == 1 else torch.stack(parts)

    def along(parts: list[Tensor]) -> Tensor:
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    blocks, own = cells[0].blocks, cells[0].deter // cells[0].blocks
    shared = 2 * cells[0].inputs[0].width
    return [
        along([torch.block_diag(*(layer[0].weight for layer in cell.inputs)) for cell in cells]),
        torch.cat([layer[0].bias for cell in cells for layer in cell.inputs]),
        torch.stack([layer[1].scale for cell in cells for layer in cell.inputs]),
        side([cell.weight[own : own + shared].flatten(1) for cell in cells]),
        along([cell.weight[:own].transpose(0, 1) for cell in cells]),
        side([cell.norm.scale.view(blocks, 1, own) for cell in cells]),
        along([cell.gates.weight.transpose(0, 1) for cell in cells]),
        along([cell.gates.bias.view(blocks, 1, 3 * own) for cell in cells]),
        side([p.mix[0].weight[:, : p.deter].t() for p in posteriors]),
        side([p.mix[1].scale[None] for p in posteriors]),
        side([p.out.weight.t() for p in posteriors]),
        side([p.out.bias[None] for p in posteriors]),
    ]


class _Scan(torch.autograd.Function):
    """The loop of `plain_scan` over packed weights, forward and backward. Products run in the weights' precision,
    everything else in the state's. A norm is kept as unit = x / root with root = sqrt(C) rms(x), see wm_core.norm."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        state0: Tensor,
        driven: Tensor,
        seen: Tensor,
        keep: Tensor,
        noise: Tensor,
        unimix: float,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        in_w, in_b, in_s, shared, own_w, hid_s, gates_w, gates_b, post_w, post_s, out_w, out_b = weights
        steps, rows, count, deter = driven.shape
        groups, own = own_w.shape[0], own_w.shape[1]
        blocks, hidden, width, low = groups // count, in_s.shape[1], count * deter, in_w.dtype
        latents, classes = noise.shape[2:]
        in_s, hid_s, post_s = (
            s.to(state0.dtype) * n**0.5 for s, n in ((in_s, hidden), (hid_s, deter), (post_s, post_s.shape[-1]))
        )
        floor = [state0.new_full((), (n * EPS) ** 0.5) for n in (hidden, deter, post_s.shape[-1])]
        in_t, gates_b = in_w.t(), gates_b.clone()
        gates_b[..., 2 * own :] -= 1  # update = sigmoid(u - 1)
        driven, seen = driven.to(low).transpose(1, 2), seen.to(low).transpose(1, 2)  # (T, R, B, .)
        # (p + share) / noise is greatest where the mixed probability wins the race
        weight = 1 / noise
        share = weight * (unimix / classes / (1 - unimix))

        out = state0.new_zeros(steps, rows, state0.shape[1])
        states, probs = torch.empty_like(out), noise.new_empty(noise.shape)
        in_unit = state0.new_empty(steps, rows, 2 * count, hidden)
        hid_unit = state0.new_empty(steps, count, blocks, rows, own)
        post_unit = state0.new_empty(steps, count, rows, post_s.shape[-1])
        in_root, hid_root, post_root = [], [], []
        switches = state0.new_empty(steps, groups, rows, 2, own)  # reset and update
        cands = state0.new_empty(steps, groups, rows, own)
        opened = []
        before = state0
        for t in range(steps):
            state = torch.mul(before, keep[t], out=states[t])
            pre = wide(torch.addmm(in_b, state.to(low), in_t)).view(rows, 2 * count, hidden)
            in_root.append(root_of(pre, floor[0]))
            x = F.silu(torch.div(pre, in_root[t], out=in_unit[t]) * in_s, inplace=True).to(low)
            both = torch.baddbmm(driven[t], x.view(rows, count, -1).transpose(0, 1), shared)
            both = both.view(count, rows, blocks, own).transpose(1, 2).reshape(groups, rows, own)
            old = state[:, :width].unflatten(1, (groups, own)).transpose(0, 1)
            hid = wide(torch.baddbmm(both, old.to(low), own_w)).view(count, blocks, rows, own)
            norm = torch.linalg.vector_norm(hid, dim=(1, 3), keepdim=True)
            hid_root.append(torch.hypot(norm, floor[1]))
            x = F.silu(torch.div(hid, hid_root[t], out=hid_unit[t]) * hid_s, inplace=True).to(low)
            gates = wide(torch.baddbmm(gates_b, x.view(groups, rows, own), gates_w)).view(groups, rows, 3, own)
            switch = torch.sigmoid(gates[:, :, ::2], out=switches[t])
            opened.append(gates)
            cand = torch.mul(switch[:, :, 0], gates[:, :, 1], out=cands[t]).tanh_()
            new = out[t, :, :width]
            torch.lerp(old, cand, switch[:, :, 1], out=new.unflatten(1, (groups, own)).transpose(0, 1))
            new = new.unflatten(1, (count, deter)).transpose(0, 1)
            pre = wide(torch.baddbmm(seen[t], new.to(low), post_w))
            post_root.append(root_of(pre, floor[2]))
            x = F.silu(torch.div(pre, post_root[t], out=post_unit[t]) * post_s, inplace=True).to(low)
            logits = wide(torch.baddbmm(out_b, x, out_w)).unflatten(2, (-1, classes)).transpose(0, 1)
            torch.softmax(logits, -1, out=probs[t].unflatten(1, (count, -1)))
            won = torch.addcmul(share[t], probs[t], weight[t]).argmax(-1, keepdim=True)
            out[t, :, width:].unflatten(1, (latents, classes)).scatter_(-1, won, 1.0)
            before = out[t]
        ctx.sizes = count, deter, groups, own, unimix
        ctx.save_for_backward(
            states, out, probs, keep, switches, cands, torch.stack(opened), in_unit, hid_unit, post_unit,
            torch.stack(in_root), torch.stack(hid_root), torch.stack(post_root), in_s, hid_s, post_s, *weights,
        )  # fmt: skip
        return out[:, :, :width], out[:, :, width:].unflatten(2, (latents, classes)), probs

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, to_deter: Tensor, to_stoch: Tensor, to_probs: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        states, out, probs, keep, switches, cands, opened, in_unit, hid_unit, post_unit, *rest = ctx.saved_tensors
        in_root, hid_root, post_root, in_s, hid_s, post_s, *weights = rest
        in_w, _, _, shared, own_w, _, gates_w, _, post_w, _, out_w, _ = weights
        count, deter, groups, own, unimix = ctx.sizes
        steps, rows, width, low = len(states), states.shape[1], count * deter, in_w.dtype
        latents, classes = probs.shape[2:]

        # what is elementwise, for all steps: d gates = d new * turn, d old = d new * stay, and the three norms
        (reset, update), raw = switches.unbind(3), opened[:, :, :, 1]
        old = states[:, :, :width].unflatten(2, (groups, own)).transpose(1, 2)
        inner = update * (1 - cands.square())
        turn = torch.stack([inner * raw * reset * (1 - reset), inner * reset, (cands - old) * update * (1 - update)], 3)
        stay = 1 - update
        in_slope, hid_slope, post_slope = slope(in_unit, in_s), slope(hid_unit, hid_s), slope(post_unit, post_s)
        in_pull, hid_pull = in_slope * in_s / in_root, hid_slope * hid_s / hid_root
        post_pull = post_slope * post_s / post_root

        grad = torch.cat([to_deter, (to_stoch + to_probs / (1 - unimix)).flatten(2)], 2)
        out_t = (out_w * (1 - unimix)).mT  # straight-through: d probs = (1 - unimix) d stoch
        post_t, gates_t, shared_t, own_t = post_w.mT, gates_w.mT, shared.mT, own_w.mT
        to_logits, to_post, to_hid, to_in = (torch.empty_like(x) for x in (probs, post_unit, hid_unit, in_unit))
        to_gates = turn.new_empty(groups, steps, rows, 3, own)
        from_post, from_hid, from_in = [], [], []
        held = grad.new_zeros(grad.shape[1:])
        for t in reversed(range(steps)):
            deters, stochs = grad[t, :, :width], grad[t, :, width:].unflatten(1, (latents, classes))
            torch.ops.aten._softmax_backward_data.out(stochs, probs[t], -1, stochs.dtype, grad_input=to_logits[t])  # noqa: SLF001
            logits = to_logits[t].view(rows, count, -1).transpose(0, 1)
            from_post.append(wide(torch.bmm(logits.to(low), out_t)))
            pull = from_post[-1] * post_pull[t]
            dot = (pull * post_unit[t]).sum(-1, keepdim=True)
            post = torch.addcmul(pull, post_unit[t], dot, value=-1, out=to_post[t])
            add_product(deters.unflatten(1, (count, deter)).transpose(0, 1), post.to(low), post_t)
            new = deters.unflatten(1, (groups, own)).transpose(0, 1)
            gates = torch.mul(new.unsqueeze(2), turn[t], out=to_gates[:, t])
            torch.mul(new, stay[t], out=held[:, :width].unflatten(1, (groups, own)).transpose(0, 1))
            back = torch.bmm(gates.flatten(2).to(low), gates_t)
            from_hid.append(wide(back).view(hid_unit.shape[1:]))
            pull = from_hid[-1] * hid_pull[t]
            dot = (pull * hid_unit[t]).sum((1, 3), keepdim=True)
            hid = torch.addcmul(pull, hid_unit[t], dot, value=-1, out=to_hid[t]).to(low)
            back = torch.bmm(hid.transpose(1, 2).reshape(count, rows, deter), shared_t)
            from_in.append(wide(back).transpose(0, 1).reshape(in_unit.shape[1:]))
            pull = from_in[-1] * in_pull[t]
            dot = (pull * in_unit[t]).sum(-1, keepdim=True)
            inputs = torch.addcmul(pull, in_unit[t], dot, value=-1, out=to_in[t])
            state = torch.addmm(held.to(low), inputs.flatten(1).to(low), in_w)
            add_product(
                state[:, :width].unflatten(1, (groups, own)).transpose(0, 1), hid.view(groups, rows, own), own_t
            )
            if t:
                grad[t - 1].addcmul_(state, keep[t])

        # one product for each weight, over all steps and rows
        def flat(x: Tensor, *keep_last: int) -> Tensor:
            return x.to(low).reshape(steps * rows, *keep_last)

        befores, afters = flat(states, -1), flat(out[:, :, :width], count, deter).transpose(0, 1)
        x_in = flat(F.silu(in_unit * in_s), count, -1).transpose(0, 1)
        x_hid = F.silu(hid_unit * hid_s).to(low).flatten(1, 2).transpose(0, 1).reshape(groups, -1, own)
        x_post = F.silu(post_unit * post_s).to(low).transpose(0, 1).reshape(count, steps * rows, -1)
        d_in = flat(to_in, -1)
        d_hid = to_hid.to(low).flatten(1, 2).transpose(0, 1).reshape(groups, -1, own)
        d_both = to_hid.transpose(2, 3).reshape(steps, count, rows, deter)  # of what is driven, and of what is shared
        d_post = to_post.to(low).transpose(0, 1).reshape(count, steps * rows, -1)
        d_gates = to_gates.to(low).view(groups, steps * rows, -1)
        d_out = flat(to_logits, count, -1).transpose(0, 1) * (1 - unimix)
        owns = befores[:, :width].unflatten(1, (groups, own)).transpose(0, 1)
        scales = [
            (torch.stack(back[::-1]) * rise * unit).sum((0, *over)) * n**0.5
            for back, rise, unit, over, n in (
                (from_in, in_slope, in_unit, (1,), in_unit.shape[-1]),
                (from_hid, hid_slope, hid_unit, (3,), deter),
                (from_post, post_slope, post_unit, (2,), post_unit.shape[-1]),
            )
        ]
        return (
            state * keep[0],
            d_both.transpose(1, 2),
            to_post.transpose(1, 2),
            None,
            None,
            None,
            d_in.t() @ befores,
            d_in.sum(0),
            scales[0],
            torch.bmm(x_in.mT, flat(d_both.transpose(1, 2), count, deter).transpose(0, 1)),
            torch.bmm(owns.mT, d_hid),
            scales[1][..., None, :],
            torch.bmm(x_hid.mT, d_gates),
            d_gates.sum(1, keepdim=True),
            torch.bmm(afters.mT, d_post),
            scales[2][:, None],
            torch.bmm(x_post.mT, d_out),
            d_out.sum(1, keepdim=True),
        )


def add_product(to: Tensor, a: Tensor, b: Tensor) -> None:
    """to += a @ b in place, whatever the precision of the product."""
    if to.dtype == a.dtype:
        to.baddbmm_(a, b)
    else:
        to.add_(torch.bmm(a, b))


def slope(unit: Tensor, scale: Tensor) -> Tensor:
    """The derivative of silu at unit * scale."""
    y = unit * scale
    return torch.ops.aten.silu_backward(torch.ones((), dtype=y.dtype, device=y.device).expand_as(y), y)
