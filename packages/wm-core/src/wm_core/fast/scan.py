"""The posterior of a recurrent state-space model over T steps, with its gradient written out; read `wm_core.plain` first.

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

from wm_core import plain
from wm_core.blocks import BlockGRU
from wm_core.norm import EPS
from wm_core.posterior import Posterior
from wm_core.precision import wide


def posterior_scan(
    branches: Sequence[Any], state: Tensor, driven: Tensor, seen: Tensor, keep: Tensor, noise: Tensor, unimix: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`plain.posterior_scan` with its gradient written out, where every cell is a BlockGRU over (deter, stoch) and every
    posterior a `Posterior`; else that itself. Same arguments.

    The gradient is first order only. An act, a single step without gradient, does not lay a branch's weights side by side.
    """
    act = len(keep) == len(branches) == 1 and not torch.is_grad_enabled()
    if act or not all(written_out(branch) for branch in branches):
        return plain.posterior_scan(branches, state, driven, seen, keep, noise, unimix)
    kind = state.device.type
    low = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else state.dtype
    weights = [weight.to(low) for weight in packed(branches)]
    with torch.autocast(kind, enabled=False):
        found: tuple[Tensor, Tensor, Tensor] = _Scan.apply(state, driven, seen, keep, noise, unimix, *weights)
    return found


def written_out(branch: Any) -> bool:
    """Whether a branch is of the kind whose gradient stands below."""
    return type(branch.cell) is BlockGRU and len(branch.cell.inputs) == 2 and type(branch.posterior) is Posterior


def packed(branches: Sequence[Any]) -> list[Tensor]:
    """The weights of all branches side by side, in the order that `_Scan` takes them.

    inputs (2RH, W), block-diagonal over deter and stoch, its bias and scale (2R, H); shared (R, 2H, D); own (RG, D/G,
    D/G), scale (R, D); gates (RG, D/G, 3D/G) and bias; posterior (R, D, H), scale (R, H); out (R, H, S*K/R)
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
        side([cell.norm.scale for cell in cells]),
        along([cell.gates.weight.transpose(0, 1) for cell in cells]),
        along([cell.gates.bias.view(blocks, 1, 3 * own) for cell in cells]),
        side([p.mix[0].weight[:, : p.deter].t() for p in posteriors]),
        side([p.mix[1].scale for p in posteriors]),
        side([p.out.weight.t() for p in posteriors]),
        side([p.out.bias[None] for p in posteriors]),
    ]


class _Scan(torch.autograd.Function):
    """The loop of `plain.posterior_scan` over packed weights, forward and backward. Products run in the weights' precision,
    everything else in the state's. A norm is kept as unit = x / root with root = sqrt(C) rms(x), see wm_core.norm."""

    @staticmethod
    def forward(
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
        hidden, width, low = in_s.shape[1], count * deter, in_w.dtype
        latents, classes = noise.shape[2:]
        in_s, hid_s, post_s = (
            s.to(state0.dtype) * n**0.5 for s, n in ((in_s, hidden), (hid_s, deter), (post_s, post_s.shape[-1]))
        )
        gates_b = gates_b.clone()
        gates_b[..., 2 * own :] -= 1  # update = sigmoid(u - 1)
        driven, seen = driven.to(low).transpose(1, 2), seen.to(low).transpose(1, 2)  # (T, R, B, .)
        # (p + share) / noise is greatest where the mixed probability wins the race
        weight = 1 / noise
        share = weight * (unimix / classes / (1 - unimix))

        out = state0.new_zeros(steps, rows, state0.shape[1])
        states, probs = torch.empty_like(out), noise.new_empty(noise.shape)
        in_unit = state0.new_empty(steps, rows, 2 * count, hidden)
        hid_unit = state0.new_empty(steps, rows, count, deter)
        post_unit = state0.new_empty(steps, rows, count, post_s.shape[-1])
        in_root, hid_root, post_root = [], [], []
        switches = state0.new_empty(steps, groups, rows, 2, own)  # reset and update
        cands = state0.new_empty(steps, groups, rows, own)
        opened = []
        # behind every row stands sqrt(C * eps), spread over eight columns that keep rows aligned: the norm of the row
        # is then the root of the RMSNorm, eps and all
        in_row, hid_row, post_row = (
            in_w.new_full((rows, n, width + 8), (width * EPS / 8) ** 0.5)
            for n, width in ((2 * count, hidden), (count, deter), (count, post_s.shape[-1]))
        )
        in_pre, hid_pre, post_pre = in_row[..., :-8], hid_row[..., :-8], post_row[..., :-8]
        in_each, in_t, in_b = in_pre.transpose(0, 1), in_w.view(2 * count, hidden, -1).mT, in_b.view(2 * count, 1, -1)
        hid_both = hid_pre.transpose(0, 1)
        hid_each = [part.unflatten(1, (-1, own)).transpose(0, 1) for part in hid_pre.unbind(1)]  # (G, B, D/G) a branch
        own_ws = own_w.chunk(count)
        before = state0
        for t in range(steps):
            state = torch.mul(before, keep[t], out=states[t])
            torch.baddbmm(in_b, state.to(low).expand(2 * count, -1, -1), in_t, out=in_each)
            in_root.append(torch.linalg.vector_norm(wide(in_row), dim=-1, keepdim=True))
            x = F.silu(torch.div(in_pre, in_root[t], out=in_unit[t]) * in_s, inplace=True).to(low)
            torch.baddbmm(driven[t], x.view(rows, count, -1).transpose(0, 1), shared, out=hid_both)
            old = state[:, :width].unflatten(1, (groups, own)).transpose(0, 1)
            for part, mine, own_r in zip(hid_each, old.to(low).chunk(count), own_ws, strict=True):
                part.baddbmm_(mine, own_r)
            hid_root.append(torch.linalg.vector_norm(wide(hid_row), dim=-1, keepdim=True))
            x = F.silu(torch.div(hid_pre, hid_root[t], out=hid_unit[t]) * hid_s, inplace=True).to(low)
            x = x.view(rows, groups, own).transpose(0, 1)
            gates = wide(torch.baddbmm(gates_b, x, gates_w)).view(groups, rows, 3, own)
            switch = torch.sigmoid(gates[:, :, ::2], out=switches[t])
            opened.append(gates)
            cand = torch.mul(switch[:, :, 0], gates[:, :, 1], out=cands[t]).tanh_()
            new = out[t, :, :width]
            torch.lerp(old, cand, switch[:, :, 1], out=new.unflatten(1, (groups, own)).transpose(0, 1))
            new = new.unflatten(1, (count, deter)).transpose(0, 1)
            torch.baddbmm(seen[t], new.to(low), post_w, out=post_pre.transpose(0, 1))
            post_root.append(torch.linalg.vector_norm(wide(post_row), dim=-1, keepdim=True))
            x = F.silu(torch.div(post_pre, post_root[t], out=post_unit[t]) * post_s, inplace=True).to(low)
            x = x.transpose(0, 1)
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
    @once_differentiable
    def backward(ctx: Any, to_deter: Tensor, to_stoch: Tensor, to_probs: Tensor) -> tuple[Tensor | None, ...]:
        states, out, probs, keep, switches, cands, opened, in_unit, hid_unit, post_unit, *rest = ctx.saved_tensors
        in_root, hid_root, post_root, in_s, hid_s, post_s, *weights = rest
        in_w, _, _, shared, own_w, _, gates_w, _, post_w, _, out_w, _ = weights
        count, deter, groups, own, unimix = ctx.sizes
        steps, rows, width, low = len(states), states.shape[1], count * deter, in_w.dtype
        latents, classes = probs.shape[2:]

        # what is elementwise, for all steps: d gates = d new * bend, d old = d new * stay, and the three norms
        (reset, update), raw = switches.unbind(3), opened[:, :, :, 1]
        old = states[:, :, :width].unflatten(2, (groups, own)).transpose(1, 2)
        inner = update * (1 - cands.square())
        bend = torch.stack([inner * raw * reset * (1 - reset), inner * reset, (cands - old) * update * (1 - update)], 3)
        stay = 1 - update
        in_slope, hid_slope, post_slope = slope(in_unit, in_s), slope(hid_unit, hid_s), slope(post_unit, post_s)
        in_pull, hid_pull = in_slope * in_s / in_root, hid_slope * hid_s / hid_root
        post_pull = post_slope * post_s / post_root

        grad = torch.cat([to_deter, (to_stoch + to_probs / (1 - unimix)).flatten(2)], 2)
        out_t = (out_w * (1 - unimix)).mT  # straight-through: d probs = (1 - unimix) d stoch
        post_t, gates_t, shared_t, own_t = post_w.mT, gates_w.mT, shared.mT, own_w.mT
        to_logits, to_post, to_hid, to_in = (torch.empty_like(x) for x in (probs, post_unit, hid_unit, in_unit))
        to_gates = bend.new_empty(groups, steps, rows, 3, own)
        from_post, from_hid, from_in = (x.new_empty(x.shape, dtype=low) for x in (post_unit, hid_unit, in_unit))
        held = grad.new_zeros(grad.shape[1:])
        for t in reversed(range(steps)):
            deters, stochs = grad[t, :, :width], grad[t, :, width:].unflatten(1, (latents, classes))
            torch.ops.aten._softmax_backward_data.out(stochs, probs[t], -1, stochs.dtype, grad_input=to_logits[t])  # noqa: SLF001
            logits = to_logits[t].view(rows, count, -1).transpose(0, 1)
            torch.bmm(logits.to(low), out_t, out=from_post[t].transpose(0, 1))
            post = project(wide(from_post[t]) * post_pull[t], post_unit[t], to_post[t])
            add_product(deters.unflatten(1, (count, deter)).transpose(0, 1), post.transpose(0, 1).to(low), post_t)
            new = deters.unflatten(1, (groups, own)).transpose(0, 1)
            gates = torch.mul(new.unsqueeze(2), bend[t], out=to_gates[:, t])
            torch.mul(new, stay[t], out=held[:, :width].unflatten(1, (groups, own)).transpose(0, 1))
            torch.bmm(gates.flatten(2).to(low), gates_t, out=from_hid[t].view(rows, groups, own).transpose(0, 1))
            hid = project(wide(from_hid[t]) * hid_pull[t], hid_unit[t], to_hid[t]).to(low)
            torch.bmm(hid.transpose(0, 1), shared_t, out=from_in[t].view(rows, count, -1).transpose(0, 1))
            inputs = project(wide(from_in[t]) * in_pull[t], in_unit[t], to_in[t])
            state = torch.addmm(held.to(low), inputs.flatten(1).to(low), in_w)
            each = hid.view(rows, groups, own).transpose(0, 1)
            add_product(state[:, :width].unflatten(1, (groups, own)).transpose(0, 1), each, own_t)
            if t:
                grad[t - 1].addcmul_(state, keep[t])

        # one product for each weight, over all steps and rows
        def flat(x: Tensor, parts: int) -> Tensor:
            """(T, B, ...) -> (parts, T*B, .)"""
            return x.to(low).reshape(steps * rows, parts, -1).transpose(0, 1)

        befores, afters = states.to(low).flatten(0, 1), out[:, :, :width]
        d_in, d_gates = to_in.to(low).reshape(steps * rows, -1), to_gates.to(low).view(groups, steps * rows, -1)
        d_post, d_out = flat(to_post, count), flat(to_logits, count) * (1 - unimix)
        scales = [
            (back * rise * unit).sum((0, 1)) * unit.shape[-1] ** 0.5
            for back, rise, unit in (
                (from_in, in_slope, in_unit),
                (from_hid, hid_slope, hid_unit),
                (from_post, post_slope, post_unit),
            )
        ]
        return (
            state * keep[0],
            to_hid,
            to_post,
            None,
            None,
            None,
            d_in.t() @ befores,
            d_in.sum(0),
            scales[0],
            torch.bmm(flat(F.silu(in_unit * in_s), count).mT, flat(to_hid, count)),
            torch.bmm(flat(states[:, :, :width], groups).mT, flat(to_hid, groups)),
            scales[1],
            torch.bmm(flat(F.silu(hid_unit * hid_s), groups).mT, d_gates),
            d_gates.sum(1, keepdim=True),
            torch.bmm(flat(afters, count).mT, d_post),
            scales[2],
            torch.bmm(flat(F.silu(post_unit * post_s), count).mT, d_out),
            d_out.sum(1, keepdim=True),
        )


def project(pull: Tensor, unit: Tensor, out: Tensor) -> Tensor:
    """pull - unit (unit . pull) over the last axis, into `out`: the gradient through x / root."""
    dot = torch.bmm(pull.flatten(0, 1)[:, None], unit.flatten(0, 1)[:, :, None]).view(*unit.shape[:2], 1)
    return torch.addcmul(pull, unit, dot, value=-1, out=out)


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
