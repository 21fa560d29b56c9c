"""Every app's update and act could be recorded as a CUDA graph, as far as a machine without a GPU can tell."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors  # noqa: PLC2701 - torch's own list of what makes tensors
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: PLC2701 - torch documents it, and has no other door
from torch.utils._pytree import tree_leaves  # noqa: PLC2701 - torch's own, and it has no other door
from wm_core.dispatched import Dispatched
from wm_core.fast.capture import WARMUP
from wm_core.fast.compiled import compile_parts
from wm_core.testing import assert_same

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))

from bench import cases

APPS = {
    "dreamer": (),
    "dreamer with var": ("--var", "True", "--var-warmup", "0"),
    "mappo": (),
    "mappo with a gru": ("--actor", "gru", "--backward", "4"),
    "mappo with mat": ("--policy", "mat", "--order", "random"),
    "po_dreamer": (),
    "po_dreamer of the paper": ("--nets", "2023", "--optimiser", "adam"),
    "po_dreamer of a team": ("--task", "toy:leavers", "--agent-order", "random"),
    "po_dreamer of a team, keys anew": ("--task", "toy:leavers", "--memory-keys", "fresh", "--policy", "decentralised"),
    "r2i": (),
    "storm": (),
    "dmawm": ("--task", "toy:leavers"),
}
HOST = {
    getattr(Tensor, name)
    for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__")
}
CONSTANTS = {torch.tensor, torch.as_tensor, torch.from_numpy}
# operators whose result's shape, or whose answer, is read on the host
READS = {
    "_local_scalar_dense",
    "equal",
    "is_nonzero",
    "nonzero",
    "masked_select",
    "unique",
    "_unique2",
    "unique_consecutive",
}


class Explicit(TorchFunctionMode):
    """Refuses what reads numbers on the host, brings numbers from it, or makes tensors that no device is named for.

    `one_hot` with a number of classes is checked on the host for CPU tensors alone.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        assert func not in HOST, f"{func.__name__} reads on the host"
        assert func not in CONSTANTS, f"{func.__name__} brings numbers from the host"
        assert func not in _device_constructors() or kwargs.get("device") is not None, (
            f"{func.__name__} without a device"
        )
        Blind.off = func is torch.nn.functional.one_hot and len(args) + len(kwargs) > 1
        try:
            return func(*args, **kwargs)
        finally:
            Blind.off = False


class Blind(TorchDispatchMode):
    """The same where torch does it by itself."""

    off = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")  # noqa: SLF001
        assert name not in READS or Blind.off, f"{name} reads on the host"
        assert name != "lift_fresh", "numbers are brought from the host"
        if name in ("index", "index_put", "index_put_"):
            assert not any(t is not None and t.dtype == torch.bool for t in args[1]), (
                "a mask as index reads on the host"
            )
        assert name != "repeat_interleave" or not isinstance(args[0], Tensor) or len(args) > 1
        return func(*args, **(kwargs or {}))


def prepare(app: str, *more: str) -> Any:
    words = ["--preset", "tiny", "--device", "cpu", "--seed", "3", *APPS[app], *more]
    return cases.prepare(app.partition(" ")[0], words)


def on_device(step: dict[str, Any]) -> dict[str, Tensor]:
    return {key: torch.as_tensor(value)[:, None] for key, value in step.items()}


@pytest.mark.parametrize("app", [app for app in APPS if app != "dreamer with var"])
def test_nothing_in_an_update_or_an_act_meets_the_host(app: str) -> None:
    """Value alignment looks at its critic on the host until it has seen it work; on a GPU never while recording."""
    case = prepare(app)
    batches = cases.batches_of(case)
    with Explicit(), Blind():
        case.agent.update(*batches)
    agent, source = case.agent.eval(), cases.records(case, 2)
    carry = agent.choose(agent.initial(2), on_device(next(source)), False)[0]
    for mode in (False, True):
        step = on_device(next(source))
        with Explicit(), Blind():
            carry, _, _ = agent.choose(carry, step, mode)


@pytest.mark.parametrize(
    "bad",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x[x > 0],
        lambda x: x + torch.zeros(3),
        lambda x: x[[0, 1]],
        lambda x: torch.where(x > 0, x, torch.tensor(0.0)),
        lambda x: x.masked_select(x > 0),
        lambda x: torch.nn.functional.one_hot((x > 0).long()),
    ],
)
def test_the_refusal_can_refuse(bad: Callable[[Tensor], Any]) -> None:
    x = torch.ones(3)
    with pytest.raises(AssertionError, match=r"host|device"), Explicit(), Blind():
        bad(x)


def record(agent: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Dispatched, list[str]]:
    """Let it record as on a GPU; what records, and what is said."""
    recorder, said = Dispatched(), list[str]()
    for part in ("loops", "scan"):  # what is asked of a CPU would be frozen, and is not asked of a GPU
        monkeypatch.setattr(f"wm_ssm.{part}.waits", lambda x: True)
    monkeypatch.setattr("wm_core.learner.compile_parts", lambda parts: None)  # a failure need not take minutes
    agent.capture("graph", said.append, recorder)
    return recorder, said


def learned(app: str, recorded: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[Any], Any]:
    """Some acts and updates: the agent, all that they gave, and what recorded them."""
    case = prepare(app)
    agent, recorder, said = case.agent, None, list[str]()
    replay, given = cases.fill(case), []
    if recorded:
        recorder, said = record(agent, monkeypatch)
    carry, source = agent.initial(2), cases.records(case, 2, seed=1)
    for _ in range(WARMUP + 4):
        carry, action, notes = agent.act(carry, next(source))
        given.append((action, notes))
        given.append(agent.learn(replay))
    assert said == []
    return agent, given, recorder


@pytest.mark.parametrize("app", APPS)
def test_a_recorded_agent_is_the_plain_one(app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, expected, _ = learned(app, False, monkeypatch)
    agent, given, recorder = learned(app, True, monkeypatch)
    assert recorder.replays >= 4  # at least the updates; the window of a transformer grows at first
    assert_same(given, expected)
    assert_same(dict(agent.state_dict()), dict(plain.state_dict()))
    assert_same(agent.state(), plain.state())


@pytest.mark.parametrize("app", [app for app in APPS if " " not in app])
def test_a_schedule_beside_the_updates_is_refused(app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A learning rate that the host lowers by 1% an update would stand still in a graph."""
    case = prepare(app)
    agent, replay = case.agent, cases.fill(case)
    rules = list(getattr(agent.optimiser, "rules", {"all": agent.optimiser}).values())
    _, said = record(agent, monkeypatch)
    for _ in range(WARMUP + 2):
        agent.learn(replay)
        for rule in rules:
            rule.lr *= 0.99
    assert len(said) == 1 and said[0].startswith("the update does something else when recorded as one graph"), said


@pytest.mark.parametrize("app", APPS)
def test_what_an_update_changes_is_known(app: str) -> None:
    """A recording is tried out and undone by what `changing` names: all that is saved, but for generators and steps."""
    case = prepare(app)
    agent, replay = case.agent, cases.fill(case)
    for _ in range(2):
        agent.learn(replay)
    here = {leaf.data_ptr() for leaf in agent.changing()}
    state = agent.state()
    del state["source"], state["clock"]
    state.pop("own", None)
    saved = [*agent.state_dict().values(), *(leaf for leaf in tree_leaves(state) if isinstance(leaf, Tensor))]
    assert {leaf.data_ptr() for leaf in saved} <= here
    states = {id(generator): generator.get_state() for generator in agent.generators}
    before, steps = torch.get_rng_state(), [leaf.detach().clone() for leaf in agent.changing()]
    agent.learn(replay)
    assert any(not torch.equal(g.get_state(), states[id(g)]) for g in agent.generators)
    assert torch.equal(torch.get_rng_state(), before) or app == "storm"  # dropout draws from torch's own
    assert any(not torch.equal(a, b) for a, b in zip(agent.changing(), steps, strict=True))


@pytest.mark.skipif(
    not os.environ.get("COMPILE"), reason="takes minutes: COMPILE=1 pytest tests/test_capture.py -k compiled"
)
@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_compiled_networks_compute_the_same(backend: str) -> None:
    plain, case = prepare("dreamer"), prepare("dreamer")
    replay, other = cases.fill(plain), cases.fill(case)
    compile_parts(case.agent.networks(), backend)
    assert case.agent.state_dict().keys() == plain.agent.state_dict().keys()
    for _ in range(2):
        expected, found = plain.agent.learn(replay), case.agent.learn(other)
        assert {name: value.item() for name, value in found.items()} == pytest.approx(
            {name: value.item() for name, value in expected.items()}, rel=1e-4, abs=1e-5, nan_ok=True
        )
    from torch._dynamo.utils import counters  # noqa: PLC2701 - the only place that tells

    assert counters["stats"]["unique_graphs"] >= 5


@pytest.mark.parametrize("app", [app for app in APPS if app != "dreamer with var"])
def test_half_precision_needs_no_scaler(app: str) -> None:
    """The same update in bf16: every loss near that in float32, every gradient finite, all that is kept float32."""
    losses = {}
    for precision in ("fp32", "bf16"):
        case = prepare(app, "--precision", precision)
        assert case.agent.precision == precision
        metrics = case.agent.learn(cases.fill(case))
        losses[precision] = {
            name: value for name, value in metrics.items() if name.startswith(("loss/", "opt/grad_norm"))
        }
        assert all(value.isfinite() for value in metrics.values() if not value.isnan()), precision
        assert {weight.dtype for weight in case.agent.parameters()} == {torch.float32}
        assert all(leaf.isfinite().all() for leaf in case.agent.changing())
    assert losses["fp32"].keys() == losses["bf16"].keys() and len(losses["fp32"]) >= 3
    for name, exact in losses["fp32"].items():
        share = 0.02 if name.startswith("loss/") else 0.5  # in a small batch where some samples fall otherwise
        least = 1e-3 if name == "loss/policy" else 1e-4  # a mean of advantages of size 1, which all but cancel
        assert losses["bf16"][name].item() == pytest.approx(exact.item(), rel=share, abs=least), name
