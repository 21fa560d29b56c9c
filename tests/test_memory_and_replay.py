"""Acting, replay and the model together: what acting remembered is what a batch sees. Sizes as in memory.py."""

import pytest
import torch
from torch import Tensor
from wm_core import draws
from wm_core.encoders import MultiEncoder
from wm_core.observations import Observations
from wm_core.types import Past
from wm_memory import Frames, FusedRSSM, Gaussian, Memory, MemoryEncoder, OneHotActionEncoder, Recall, across_episodes
from wm_run.replay import Replay

SEEN, A, E, M, ENVS = Observations(vectors={"vector": 4}), 3, 16, 10, 2


def make() -> tuple[MemoryEncoder, FusedRSSM]:
    torch.manual_seed(0)
    encoder = MemoryEncoder(Frames(SEEN, width=E, units=8), MultiEncoder(SEEN, units=8, depth=2))
    recall = Recall(width=E, action=A, count=4, heads=2, actions=OneHotActionEncoder(A, E))
    memory = Memory(recall, action=A, window=M, bottleneck=Gaussian(E, 6, hidden=8), sight=across_episodes)
    model = FusedRSSM(memory=memory, deter=16, stoch=(4, 3), embed=encoder.width, action=A, hidden=8, blocks=2)
    return encoder.eval(), model.eval()


def world(length: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    first = torch.rand(ENVS, length, generator=generator) < 0.15
    first[:, 0] = True
    action = torch.nn.functional.one_hot(torch.randint(A, (ENVS, length), generator=generator), A).float()
    return {
        "vector": torch.randn(ENVS, length, 4, generator=generator),
        "first": first,
        "action": action * (~first)[..., None],
    }


@torch.no_grad()
def test_a_batch_recalls_what_acting_recalled() -> None:
    (encoder, model), steps, length = make(), world(60), 6
    replay = Replay(None, ENVS, stores=model.stores, limit_bytes=10**6, chunk=16, length=length, online=False)
    carry, banks, recalled = model.initial(ENVS), [], []
    with draws.drawing(draws.Fixed()):
        for t in range(60):
            step = {name: value[:, t : t + 1] for name, value in steps.items()}
            banks.append({name: carry[name] for name in ("key", "action", "first", "valid")})
            trace = model.observe(carry, encoder(step), step["action"], step["first"])
            carry = trace.carry
            recalled.append(trace.targets["memory"][:, 0])
            notes = {name: value[:, 0] for name, value in model.stored(trace).items()}
            replay.add({name: value[:, 0].numpy() for name, value in step.items()} | notes)
        batch = replay.sample(32, length, past=M)
        start = model.prefill(model.initial(32), batch.past)
        trace = model.observe(start, encoder(batch.steps), batch.steps["action"], batch.steps["reset"])
    whole = torch.stack(recalled, 1)
    for row, (stream, begin) in enumerate(zip(batch.index.stream.tolist(), batch.index.start.tolist(), strict=True)):
        valid = banks[begin]["valid"][stream]
        assert torch.equal(start["valid"][row], valid)
        for name, value in banks[begin].items():
            assert torch.allclose(start[name][row][valid].float(), value[stream][valid].float(), atol=2e-3), name
        wanted = whole[stream, begin : begin + length]
        assert torch.allclose(trace.targets["memory"][row], wanted, atol=2e-2)


@torch.no_grad()
def test_cached_keys_equal_fresh_ones_while_weights_stand_still() -> None:
    (encoder, model), steps, cut = make(), world(30), 20
    before = {name: value[:, :cut] for name, value in steps.items()}
    after = {name: value[:, cut:] for name, value in steps.items()}
    found = []
    with draws.drawing(draws.Fixed()):
        stored = model.stored(model.observe(model.initial(ENVS), encoder(before), before["action"], before["first"]))
        for key in (stored["key"], encoder.again(before)):
            past = Past(stored | {"key": key}, before["action"], before["first"], torch.ones(ENVS, cut).bool())
            carry = model.prefill(model.initial(ENVS), past)
            found.append(model.observe(carry, encoder(after), after["action"], after["first"]).targets["memory"])
    assert torch.allclose(*found, atol=1e-2)
    encoder.frames.out.weight.mul_(-1)  # and differ once the weights moved
    fresh = past.stored | {"key": encoder.again(before)}
    carry = model.prefill(model.initial(ENVS), Past(fresh, past.action, past.first, past.valid))
    with draws.drawing(draws.Fixed()):
        moved = model.observe(carry, encoder(after), after["action"], after["first"]).targets["memory"]
    assert not torch.allclose(found[0], moved, atol=1e-1)


@pytest.mark.parametrize("steps_at_once", [1, 8])
def test_half_precision_runs_and_stays_close(steps_at_once: int) -> None:
    (encoder, model), steps = make(), world(24)
    found = []
    for enabled in (False, True):
        with draws.drawing(draws.Fixed()), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            carry = model.initial(ENVS)
            for t in range(0, 24, steps_at_once):
                part = {name: value[:, t : t + steps_at_once] for name, value in steps.items()}
                trace = model.observe(carry, encoder(part), part["action"], part["first"])
                carry = trace.carry
            model.imagine(carry, torch.zeros(ENVS, A))
        assert carry["key"].dtype == torch.float32 and trace.prior.dtype == torch.float32
        found.append(trace.targets["memory"])
    (trace.prior.sum() + trace.post.sum()).backward()
    assert (found[0] - found[1]).abs().mean() < 0.3
