"""The tables of departures in the apps' READMEs say what the code does: fields by their defaults, the rest by a look."""

from __future__ import annotations

import dataclasses
import importlib
import pathlib
import re
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from env_adapters import ActionSpec, make_vec
from gymnasium import spaces
from torch import nn
from wm_core import draws
from wm_core.images import StridedEncoder
from wm_core.norm import RMSNorm
from wm_core.returns import quantile
from wm_core.twohot import TwoHot, symexp, twohot_bins
from wm_core.types import Batch, Dream, Index, Latent
from wm_run.app import App
from wm_run.configs import overlay, resolve
from wm_run.loading import build
from wm_run.teams import Team

APPS = pathlib.Path(__file__).resolve().parents[1] / "apps"
NAMES = sorted(page.parent.name for page in APPS.glob("*/README.md"))
SPACE = spaces.Dict(
    {
        "image": spaces.Box(0, 255, (64, 64, 3), np.uint8),
        "vector": spaces.Box(-1, 1, (3,), np.float32),
    }
)


class Row(NamedTuple):
    """One line of a table: what departs, what the column headed "(default)" says, and the switch to the other side."""

    what: str
    default: str
    switch: str


def app_of(name: str) -> App:
    found: App = importlib.import_module(f"{name}.cli").APP
    return found


def tables(name: str) -> list[Row]:
    """Every row of the app's tables whose header has a default and a switch."""
    rows, place = [], None
    for line in (APPS / name / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if len(cells) == 4 and any(cell.endswith("(default)") for cell in cells):
            place = next(i for i, cell in enumerate(cells) if cell.endswith("(default)"))
        elif not cells:
            place = None
        elif place is not None and set(cells[0]) != {"-"}:
            rows.append(Row(cells[0], cells[place], cells[3]))
    return rows


def shown(value: object) -> str:
    return str(value)


def switched(name: str, row: Row) -> tuple[str, object, object]:
    """The field of a row's switch, its default in the preset that the row names, and the other side's value."""
    found = re.fullmatch(r"`--(\w+) (\S+)`(?:, preset `(\w+)`)?", row.switch)
    assert found, f"{name}: {row.switch!r} is no `--field value`, nor none"
    field, text, preset = found.groups()
    config = resolve(app_of(name), preset or "")
    kind = type(getattr(config, field))
    other = overlay(config, {field: text if kind is str else kind(float(text))}, "README")
    return field, getattr(config, field), getattr(other, field)


ROWS = [(name, row) for name in NAMES for row in tables(name)]
SWITCHES = [(name, row) for name, row in ROWS if row.switch != "none"]


@pytest.mark.parametrize("name", NAMES)
def test_every_app_has_a_table(name: str) -> None:
    assert len(tables(name)) >= 5


@pytest.mark.parametrize("name, row", SWITCHES, ids=[f"{name}: {row.what}" for name, row in SWITCHES])
def test_a_switch_is_a_field_whose_default_the_row_says(name: str, row: Row) -> None:
    field, default, other = switched(name, row)
    assert default != other, f"{field} is {other} already"
    assert f"`{shown(default)}`" in row.default, f"{field} is {default}"


def test_the_columns_of_storm_are_its_default_and_its_ablation() -> None:
    app, text = app_of("storm"), (APPS / "storm/README.md").read_text()
    fields = re.findall(r"^\| [^|]+ \| [^|]+ \| [^|]+ \| `(\w+)` \|$", text, re.MULTILINE)
    public, common = resolve(app, "atari100k"), resolve(app, "atari100k", ablation="common")
    names = [one.name for one in dataclasses.fields(app.config)]
    assert set(fields) == {name for name in names if getattr(public, name) != getattr(common, name)}
    assert all(getattr(app.config(), name) == getattr(public, name) for name in fields)


# ---- rows without a switch: a look at what the row says


def agent(name: str, continuous: bool = False, **numbers: Any) -> Any:
    app = app_of(name)
    config: Any = dataclasses.replace(resolve(app, "tiny"), device="cpu", precision="fp32", **numbers)
    spec = ActionSpec((), 2) if continuous else ActionSpec((3,), 0)
    torch.manual_seed(0)
    return build(app, config, type("Shown", (), {"observation_space": SPACE, "action_spec": spec}))


def records(n: int = 1) -> dict[str, np.ndarray[Any, Any]]:
    """First records of n environments with these observations."""
    flags = {key: np.zeros(n, np.bool_) for key in ("last", "terminal")} | {"first": np.ones(n, np.bool_)}
    seen = {"image": np.zeros((n, 64, 64, 3), np.uint8), "vector": np.zeros((n, 3), np.float32)}
    return flags | seen | {"action": np.zeros((n, 3), np.float32), "reward": np.zeros(n, np.float32)}


def a_time_limit_is_a_truncation() -> bool:
    envs = make_vec("gym:CartPole-v1", 1, workers=0, max_episode_steps=3)
    step = envs.reset(0)
    while not step["last"][0]:
        step = envs.step(np.eye(2, dtype=np.float32)[[0]])
    envs.close()
    return not step["terminal"][0]


def bins_are_those_of_float64() -> bool:
    half = symexp(torch.linspace(-20, 0, 128))
    apart = (twohot_bins()[:127] / half[:127] - 1).abs().max().item()
    return 1e-8 < apart < 1.3e-6


def far_pairs_within_rounding_count_as_the_same() -> bool:
    logits = torch.zeros(1, 255)
    logits[0, -1] = 2e-7
    plain = torch.softmax(logits.double(), -1) @ twohot_bins().double()
    return plain.item() > 0.3 and TwoHot(logits).mode().item() == 0


def bins_are_raw(name: str) -> bool:
    heads = [agent(name).world.heads["reward"].distribution, agent(name).behaviour.critic.distribution]
    return heads == [TwoHot, TwoHot]


def norms_are_rms(name: str, inside: tuple[str, ...]) -> bool:
    """No LayerNorm but in these parts, and RMSNorm in policy, critic, encoder and decoder."""
    made = agent(name)
    layers = [n for n, module in made.named_modules() if isinstance(module, (nn.LayerNorm, nn.GroupNorm))]
    parts = (made.behaviour.actor, made.behaviour.critic, made.world.encoder, made.world.decoder)
    rms = all(any(isinstance(module, RMSNorm) for module in part.modules()) for part in parts)
    return rms and all(any(part in layer for part in inside) for layer in layers)


def resets_hide_what_was_before() -> bool:
    """In R2I's dynamics: nothing before the flag changes what is at it or after, and all before it is as without."""
    dynamics = agent("r2i").world.dynamics
    embed, first = torch.randn(2, 9, dynamics.posterior[0][0].in_features), torch.zeros(2, 9, dtype=torch.bool)
    first[:, 5] = True
    embed[1, 5:] = embed[0, 5:]
    with torch.no_grad(), draws.drawing(draws.Fixed()):
        deter = dynamics.observe(dynamics.initial(2), {"obs": embed}, torch.zeros(2, 9, 3), first).latent.deter
        plain = dynamics.observe(dynamics.initial(2), {"obs": embed}, torch.zeros(2, 9, 3), first & False).latent.deter
    return torch.allclose(deter[0, 5:], deter[1, 5:]) and torch.allclose(deter[:, :5], plain[:, :5])


def the_first_weight_is_the_continue_heads() -> bool:
    made = agent("r2i")
    deter, stoch = made.world.dynamics.widths["deter"], made.world.dynamics.shape
    latent = Latent(torch.zeros(2, 4, deter), torch.zeros(2, 4, *stoch), torch.zeros(2, 4, 64))
    cont = torch.tensor([[0.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    evaluation = made.behaviour.evaluate(Dream(latent, torch.zeros(2, 3, 3), torch.zeros(2, 4), cont))
    return evaluation.weight.tolist() == [[0.0] * 3, [1.0] * 3]


def layers_have_biases_and_truncated_normals() -> tuple[bool, bool]:
    made = agent("r2i", width=64, deter=64)
    first, logits = made.world.dynamics.prior[0][0], made.world.dynamics.prior[1]
    cut = 2 * 1.1368 / 64**0.5  # two deviations of fan-in 64
    normal = all(abs(x.weight.std().item() * 8 - 1) < 0.1 for x in (first, logits))
    return first.bias is not None, normal and logits.weight.abs().max().item() <= cut + 1e-6


def an_untrained_policy_acts_first(name: str) -> bool:
    """Whatever the replay holds: acts are the policy's from the first record on."""
    made = agent(name)
    _, action, _ = made.act(made.initial(1), records(), mode=True)
    steps = {key: torch.as_tensor(value)[:, None] for key, value in records().items()}
    with torch.no_grad(), draws.drawing(draws.Generator(0)):
        latent = made.world.latest(made.world.observe(made.initial(1), steps))
    return action.sum() == 1 and (name != "storm" or not latent.deter.any())


def acting_keeps_what_it_sampled() -> bool:
    """The window's older tokens are those of the step before."""
    made = agent("storm")
    carry, windows = made.initial(1), []
    for t in range(4):
        carry, _, _ = made.act(carry, records() | {"first": np.array([t == 0])})
        windows.append(carry["backbone"]["tokens"])
    return windows[3].shape[1] == 3 and windows[3][:, :2].equal(windows[2])


def a_final_observation_is_a_record() -> bool:
    envs = make_vec("toy:catch", 1, workers=0)
    step = envs.reset(0)
    while not step["last"][0]:
        step = envs.step(np.eye(3, dtype=np.float32)[[0]])
    final = bool(step["image"].any())
    after = envs.step(np.eye(3, dtype=np.float32)[[0]])
    envs.close()
    return final and bool(after["first"][0])


def half_precision_is_bfloat16(name: str) -> bool:
    made = agent(name)
    made.precision = "bf16"
    with made.computing():
        kind = torch.get_autocast_dtype("cpu")
    kept = {preset: resolve(app_of(name), preset).precision for preset in ("atari100k", "bsuite")}
    return kind == torch.bfloat16 and set(kept.values()) == {"fp32"}


def nothing_decays() -> bool:
    """A step on a gradient of zero moves no weight."""
    made = agent("r2i")
    before = [p.clone() for p in made.parameters()]
    for rule in made.optimiser.rules.values():
        rule.apply([torch.zeros_like(p) for p in rule.params])
    return all(p.equal(was) for p, was in zip(made.parameters(), before, strict=True))


def the_head_says_goes_on() -> bool:
    sure = agent("storm").world.heads["cont"].distribution(torch.full((1, 1), 5.0))
    return bool(sure.loss(torch.ones(1)) < 0.1 < sure.loss(torch.zeros(1)))


def everything_is_read() -> bool:
    made = agent("po_dreamer")
    whole = sum(made.world.dynamics.widths.values())
    return made.behaviour.actor.mlp[0].in_features == made.behaviour.critic.mlp[0].in_features == whole


def no_frame_before_a_row_gets_a_gradient() -> bool:
    config = app_of("po_dreamer").config
    choices = typing.get_args(typing.get_type_hints(config)["memory_content"])
    return set(choices) == {"chunk", "none"} and config().memory_content == "chunk"  # type: ignore[attr-defined]


def the_newest_weights_act() -> bool:
    """An act after a change of the weights follows it."""
    made, taken = agent("dreamer"), []
    for action in (2, 1):
        with torch.no_grad():
            made.behaviour.actor.out.bias.zero_()[action] = 50.0
        taken.append(made.act(made.initial(1), records())[1].argmax().item())
    return taken == [2, 1]


def mappo(**numbers: Any) -> tuple[Any, Batch]:
    """A learner of two agents, and rows of two environments."""
    app = app_of("mappo")
    config: Any = dataclasses.replace(resolve(app, "tiny"), device="cpu", precision="fp32", **numbers)
    made = app.part("build")(config, SPACE, ActionSpec((3,), 0), Team(2))
    shown = {key: value[:, None, None].repeat(9, 1).repeat(2, 2) for key, value in records(2).items()}
    flags = {key: torch.as_tensor(shown[key][..., 0]) for key in ("first", "last", "terminal")}
    flags["first"][:, 1:] = False
    steps = {key: torch.as_tensor(value) for key, value in shown.items()} | flags
    steps |= {"alive": torch.ones(2, 9, 2, dtype=torch.bool), "action_mask": torch.ones(2, 9, 2, 3, dtype=torch.bool)}
    steps |= {"/log_prob": torch.zeros(2, 9, 2)}
    return made, Batch(steps, None, Index(torch.arange(2), torch.zeros(2, dtype=torch.long)))


def only_the_actor_remembers() -> bool:
    made, _ = mappo(actor="gru", backward=4)
    cells = [name for name, part in made.named_modules() if isinstance(part, (nn.GRU, nn.GRUCell))]
    return cells == ["actor.memory.gru.cell"]


def the_norm_moves_once_an_update() -> bool:
    made, batch = mappo(epochs=3, minibatches=2)
    made.update(batch)
    return made.norm.debias.item() == pytest.approx(made.norm.rate)


def shares_are_those_of_the_whole_batch() -> bool:
    """Half of the pieces without anybody alive: the others weigh twice as much, whichever part of an epoch they are in."""
    made, batch = mappo(minibatches=2)
    batch.steps["alive"][0] = False
    whole, _ = made.prepared(batch)
    return whole["policy_share"].unique().tolist() == [0.0, 2.0]


def values_before_the_update_are_computed() -> bool:
    made, batch = mappo()
    return "value" not in made.act(made.initial(2), team_records(batch))[2] and "value" in made.prepared(batch)[0]


def team_records(batch: Batch) -> dict[str, np.ndarray[Any, Any]]:
    return {key: value[:, 0].numpy() for key, value in batch.steps.items()}


LOOKS: dict[tuple[str, str], Callable[[], bool]] = {
    ("mappo", "memory"): only_the_actor_remembers,
    ("mappo", "value norm"): the_norm_moves_once_an_update,
    ("mappo", "losses of a minibatch"): shares_are_those_of_the_whole_batch,
    ("mappo", "value before the update"): values_before_the_update_are_computed,
    ("mappo", "images"): lambda: isinstance(mappo()[0].actor.sight.conv, StridedEncoder),
    ("dreamer", "a limit of time"): a_time_limit_is_a_truncation,
    ("dreamer", "weights that act"): the_newest_weights_act,
    ("dreamer", "two-hot bins"): bins_are_those_of_float64,
    ("dreamer", "far bins in a two-hot mean"): far_pairs_within_rounding_count_as_the_same,
    ("r2i", "resets inside a row"): resets_hide_what_was_before,
    ("r2i", "two-hot"): lambda: bins_are_raw("r2i"),
    ("r2i", "weight of a dream's first step"): the_first_weight_is_the_continue_heads,
    ("r2i", "norms outside the S5 layers"): lambda: norms_are_rms("r2i", ("backbone.blocks",)),
    ("r2i", "layers before a norm"): lambda: layers_have_biases_and_truncated_normals()[0],
    ("r2i", "layers outside the S5 begin with"): lambda: layers_have_biases_and_truncated_normals()[1],
    ("r2i", "h before an episode"): lambda: not hasattr(agent("r2i").world.dynamics, "initial_deter"),
    ("r2i", "first steps of a run"): lambda: an_untrained_policy_acts_first("r2i"),
    ("r2i", "weight decay in Memory Maze"): nothing_decays,
    ("r2i", "half precision on a GPU"): lambda: half_precision_is_bfloat16("r2i"),
    ("storm", "an episode's final observation"): a_final_observation_is_a_record,
    ("storm", "first steps of a run"): lambda: an_untrained_policy_acts_first("storm"),
    ("storm", "acting's window"): acting_keeps_what_it_sampled,
    ("storm", "percentiles of returns"): lambda: quantile(torch.tensor([0.0, 10.0]), 0.25).item() == 2.5,
    ("storm", "the continue head learns"): the_head_says_goes_on,
    ("storm", "vectors and discrete values"): lambda: len(agent("storm").world.encoder.perceptron) == 6,
    ("po_dreamer", "norms of the world model and the heads"): lambda: norms_are_rms(
        "po_dreamer", ("memory", "attention")
    ),
    ("po_dreamer", "two-hot"): lambda: bins_are_raw("po_dreamer"),
    ("po_dreamer", "policy and critic read"): everything_is_read,
    ("po_dreamer", "gradient to remembered frames"): no_frame_before_a_row_gets_a_gradient,
}


def test_every_row_without_a_switch_is_looked_at() -> None:
    assert LOOKS.keys() == {(name, row.what) for name, row in ROWS if row.switch == "none"}


@pytest.mark.parametrize("where", LOOKS, ids=": ".join)
def test_the_code_is_as_the_row_says(where: tuple[str, str]) -> None:
    assert LOOKS[where]() is True
