"""A world model as a gymnasium environment: it is the dream and the open loop of that model, alone, n at once and simulated."""

from __future__ import annotations

import dataclasses
import gc
import importlib
import pathlib
import sys
import tarfile
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from env_adapters import make, make_vec
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray
from torch import Tensor
from wm_core import draws
from wm_core.errors import UserError
from wm_core.types import Batch, Index
from wm_run import Loaded, as_env, as_vector_env
from wm_run.configs import resolve
from wm_run.dream_starts import Given
from wm_run.loading import build
from wm_run.openloop import openloop
from wm_run.recorder import Writer
from wm_run.recording import About
from wm_run.teams import team_of

OLD = pathlib.Path(__file__).parent / "old_runs" / "2028e95"
APPS = ("dreamer", "po_dreamer", "r2i", "storm")
CONTEXT, AHEAD = 5, 6


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run folder of each app."""
    folder = tmp_path_factory.mktemp("runs")
    for name in APPS:
        with tarfile.open(OLD / f"{name}.tar.xz") as packed:
            packed.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module", params=APPS)
def loaded(runs: pathlib.Path, request: pytest.FixtureRequest) -> Iterator[Loaded]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield app_of(request.param).load(runs / request.param)
    torch.set_num_threads(threads)


def app_of(name: str) -> Any:
    return importlib.import_module(f"{name}.cli").APP


def played(loaded: Loaded, length: int, n: int = 1, seed: int = 0) -> dict[str, Tensor]:
    """Rows (n, length, ...) of the task under random actions; that into an episode's first record is told as another, too, for
    a dream knows of no reset."""
    rng = np.random.default_rng(seed)
    with make_vec(loaded.config.task, n, workers=0) as envs:
        records = [envs.reset(seed)]
        for _ in range(length - 1):
            choice = rng.integers(loaded.action_size, size=n)
            records.append(envs.step(np.eye(loaded.action_size, dtype=np.float32)[choice]))
    rows = {key: torch.as_tensor(np.stack([one[key] for one in records], 1)) for key in records[0]}
    rows["action"][:, CONTEXT:][rows["first"][:, CONTEXT:]] = torch.eye(loaded.action_size)[1]
    return rows


def batch_of(rows: dict[str, Tensor]) -> Batch:
    reset = rows["first"].clone()
    reset[:, 0] = True
    where = torch.zeros(len(reset), dtype=torch.long)
    return Batch(rows | {"reset": reset, "weight": torch.ones(reset.shape)}, None, Index(where, where))


def stepped(env: Any, actions: NDArray[Any]) -> tuple[list[Any], NDArray[Any], NDArray[Any]]:
    """Observations, rewards and ends of native actions; what follows an end is dreamed on."""
    found = [env.step(action)[:3] for action in actions]
    seen, rewards, ends = zip(*found, strict=True)
    return list(seen), np.array(rewards), np.array(ends)


def same(one: Any, other: Any, bytes_apart: int = 1) -> bool:
    """Whether two observations are one, up to the rounding of float32."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    apart = np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64)).max()
    return bool(apart <= (bytes_apart if np.asarray(one).dtype == np.uint8 else 1e-5))


class Told:
    """A policy that takes the actions it is told, one a call."""

    def __init__(self, actions: Tensor) -> None:
        self.actions = list(actions.unbind(1))

    def __call__(self, latent: Any) -> Told:
        return self

    def sample(self) -> Tensor:
        return self.actions.pop(0)


def test_it_is_the_dream_of_its_world_model(loaded: Loaded) -> None:
    """In mode: rewards and what is shown at the start and at every step after it."""
    rows = played(loaded, CONTEXT + AHEAD)
    actions = rows["action"][:, CONTEXT:]
    env = as_env(loaded, starts={key: value[:, :CONTEXT] for key, value in rows.items()}, mode=True)
    begun, _ = env.reset(seed=0)
    seen, rewards, _ = stepped(env, actions[0].argmax(-1).numpy())
    world: Any = loaded.agent.world  # type: ignore[attr-defined]
    batch = batch_of({key: value[:, :CONTEXT] for key, value in rows.items()})
    with torch.no_grad(), draws.drawing(draws.Fixed()):
        trace = world.observe(world.prefill(None, 1), batch.steps)
        dream = world.dream(world.starts(trace, 1), Told(actions), AHEAD)
        shown = {key: said.mode()[0] for key, said in world.decoder(dream.latent).items()}
    assert np.abs(rewards - dream.reward[0, 1:].numpy()).max() < 1e-6
    for t, one in enumerate([begun, *seen]):
        for key, value in shown.items():
            units = 255 if one[key].dtype == np.uint8 else 1
            expected = np.clip(
                value[t].numpy() * units, *(env.observation_space[key].low, env.observation_space[key].high)
            )
            assert np.abs(one[key].astype(float) - expected).max() < (0.51 if units == 255 else 1e-5)


@pytest.mark.parametrize("mode", [True, False])
def test_it_is_the_open_loop_of_the_same_row(loaded: Loaded, mode: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample, too: the same draws in the same order. STORM that acts on the prior begins its dreams at a draw of it, and
    the open loop at what was observed, so there is nothing to compare."""
    if getattr(loaded.config, "act_on", "") == "prior":
        loaded = dataclasses.replace(loaded, agent=posterior(loaded))
    rows = played(loaded, CONTEXT + AHEAD, seed=1)
    env = as_env(loaded, starts={key: value[:, :CONTEXT] for key, value in rows.items()}, mode=mode)
    env.reset(seed=7)
    seen, _, _ = stepped(env, rows["action"][0, CONTEXT:].argmax(-1).numpy())
    if mode:
        monkeypatch.setattr(draws, "Generator", lambda seed, device: draws.Fixed())
    for key, found in openloop(loaded.agent, batch_of(rows), CONTEXT, seed=7).items():  # type: ignore[arg-type]
        for t, one in enumerate(seen):
            space, said = env.observation_space[key], found.predicted[0, CONTEXT + t].numpy()
            said = np.rint(said * 255) if found.image else said
            assert same(one[key], np.clip(said, space.low, space.high).astype(space.dtype))


def posterior(loaded: Loaded) -> Any:
    """The same weights in an agent that acts on what it observed."""
    config = dataclasses.replace(loaded.config, act_on="posterior")  # type: ignore[call-arg]
    with make_vec(config.task, 1, workers=0) as envs:
        agent = build(loaded.app, config, envs)
    agent.load_state_dict(loaded.agent.state_dict())
    return agent


@pytest.mark.parametrize("observations", ["decoded", "latent"])
def test_gymnasium_finds_nothing_to_say(loaded: Loaded, observations: Any) -> None:
    image = "image" in loaded.observation_space.spaces
    env = as_env(loaded, context=CONTEXT, observations=observations, render_mode="rgb_array" if image else None)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        check_env(env)
    known = ("not having a spec", "is -infinity", "is infinity")  # a latent has no bounds
    assert not [str(one.message) for one in said if not any(word in str(one.message) for word in known)]
    if observations == "decoded":
        assert env.observation_space == loaded.observation_space and env.action_space == loaded.action_space
    if image:
        picture = env.render()
        assert picture is not None and picture.dtype == np.uint8 and picture.shape == (64, 64, 3)
        if observations == "decoded":
            seen = env.step(1)[0]
            assert (env.render() == seen["image"]).all()


@pytest.mark.parametrize("horizon", [3, 9])
def test_several_at_once_are_as_many_single_ones(loaded: Loaded, horizon: int) -> None:
    """In mode, through ends by the horizon and by the model, each begun anew at the step after."""
    n, options = 3, {"context": CONTEXT, "horizon": horizon, "mode": True}
    loaded = dataclasses.replace(loaded, agent=restless(loaded))
    many, ones = as_vector_env(loaded, n, **options), [as_env(loaded, **options) for _ in range(n)]
    found, info = many.reset(seed=5)
    alone = [one.reset(seed=5 + i) for i, one in enumerate(ones)]
    over, ended, rng = [False] * n, 0, np.random.default_rng(0)
    for t in range(14):
        for i in range(n):
            assert same({key: value[i] for key, value in found.items()}, alone[i][0]), (t, i)
        actions, anew = rng.integers(loaded.action_size, size=n), list(over)
        found, rewards, terminated, truncated, info = many.step(actions)
        for i, one in enumerate(ones):
            if anew[i]:
                alone[i] = one.reset()
                assert rewards[i] == 0 and not terminated[i] and not truncated[i]
                assert info["_step"][i] and info["step"][i] == alone[i][1]["step"]
                over[i] = False
                continue
            shown, reward, end, cut, told = one.step(actions[i])
            alone[i] = shown, told
            assert abs(rewards[i] - reward) < 1e-5 and (terminated[i], truncated[i]) == (end, cut)
            over[i] = end or cut
            ended += over[i]
    assert ended >= 3 and found in many.observation_space


def restless(loaded: Loaded) -> Any:
    """A copy whose continue head says that about every third state is an end: so small a run has seen few."""
    with make_vec(loaded.config.task, 1, workers=0) as envs:
        agent: Any = build(loaded.app, loaded.config, envs)
    agent.load_state_dict(loaded.agent.state_dict())
    layer = [part for part in agent.world.heads["cont"].modules() if isinstance(part, torch.nn.Linear)][-1]
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(3)) * 2)
        layer.bias.fill_(0.5)
    return agent


@pytest.mark.parametrize("mode", [True, False])
def test_simulating_is_stepping(loaded: Loaded, mode: bool) -> None:
    """And it stays where it was; of samples a single sequence, for several are drawn side by side."""
    env = as_env(loaded, context=CONTEXT, mode=mode)
    env.reset(seed=1)
    env.step(env.action_space.sample())
    k = 3 if mode else 1
    choice = np.random.default_rng(0).integers(loaded.action_size, size=(k, AHEAD))
    told = env.simulate(np.eye(loaded.action_size, dtype=np.float32)[choice])
    again = env.simulate(np.eye(loaded.action_size, dtype=np.float32)[choice])
    assert told.reward.equal(again.reward) and not told.reward.requires_grad and told.value.shape == (k,)
    before = env.state()
    for row in range(k):
        env.load_state(before)
        _, rewards, ends = stepped(env, choice[row])
        assert np.abs(rewards - told.reward[row].numpy()).max() < 1e-5
        if mode:
            assert (ends == (told.ending[row].numpy() > 0.5)).all()


def test_a_seed_is_a_dream(loaded: Loaded) -> None:
    def dream(seed: int, env: Any) -> list[Any]:
        begun, info = env.reset(seed=seed)
        return [info, begun, *stepped(env, np.arange(AHEAD) % loaded.action_size)[0]]

    env, other = as_env(loaded, context=CONTEXT), as_env(loaded, context=CONTEXT)
    dream(9, other)  # what was dreamed before does not matter
    one, again, another = dream(3, env), dream(3, other), dream(4, env)
    assert one[0] == again[0] != another[0]
    for first, second in zip(one[1:], again[1:], strict=True):
        assert all((first[key] == second[key]).all() for key in first)
    many = [as_vector_env(loaded, 2, context=CONTEXT) for _ in range(2)]
    for envs in many:
        envs.reset(seed=3)
    acts = [np.array([t % 3, 1]) for t in range(AHEAD)]
    ways = [[envs.step(act)[0] for act in acts] for envs in many]
    assert all((a[key] == b[key]).all() for a, b in zip(*ways, strict=True) for key in a)


def test_following_is_observing(loaded: Loaded) -> None:
    """After two real episodes, the second under way, it stands where a dream from a row of all their steps begins."""
    real = make(loaded.config.task, seed=0)
    env = as_env(loaded, context=CONTEXT, mode=True)
    with pytest.raises(Exception, match="begins with reset"):
        env.step(0)
    rows: dict[str, list[Any]] = {"action": [], "first": []}
    for steps in (3, 2):
        native, action, over = real.reset(seed=steps)[0], None, False
        for t in range(steps):
            shown = env.follow(native, action)
            rows["action"].append(np.zeros(loaded.action_size, np.float32) if action is None else env.vector(action))
            rows["first"].append(action is None)
            for key, value in loaded.entries(native).items():
                rows.setdefault(key, []).append(value)
            action = (t + steps) % loaded.action_size
            if over or t == steps - 1:
                break
            native, _, over, _, _ = real.step(action)
    whole = as_env(loaded, starts={key: np.stack(value)[None] for key, value in rows.items()}, mode=True)
    assert same(shown, whole.reset(seed=0)[0]) and shown in env.observation_space
    acts = np.array([2, 1, 0])
    one, other = stepped(env, acts), stepped(whole, acts)
    assert np.abs(one[1] - other[1]).max() < 1e-5 and all(same(a, b) for a, b in zip(one[0], other[0], strict=True))


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_discount_in_the_continue_head_is_no_end(loaded: Loaded, share: float) -> None:
    """A head that says `share` of what it says of a state that goes on for sure: the episode ends there with 1 - share."""
    loaded = dataclasses.replace(loaded, agent=restless(loaded))
    world: Any = loaded.agent.world  # type: ignore[attr-defined]
    layer = [part for part in world.heads["cont"].modules() if isinstance(part, torch.nn.Linear)][-1]
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.logit(torch.tensor(share * world.discount), eps=1e-6))
    env = as_env(loaded, context=CONTEXT)
    env.reset(seed=0)
    ending = env.simulate(np.eye(loaded.action_size, dtype=np.float32)[None]).ending
    assert (ending - (1 - share)).abs().max() < 1e-5


def test_what_is_remembered_comes_from_before_the_context(runs: pathlib.Path) -> None:
    """Of PO-Dreamer: another past, another dream; of Dreamer nothing before the context is read."""
    memory = app_of("po_dreamer").load(runs / "po_dreamer")
    env = as_env(memory, context=CONTEXT, mode=True)
    length = env.parts.starts.length
    assert CONTEXT < length <= CONTEXT + 30
    assert as_env(app_of("dreamer").load(runs / "dreamer"), context=CONTEXT).parts.starts.length == CONTEXT
    rows = played(memory, length, seed=2)
    rows |= {"first": torch.arange(length)[None] == length - CONTEXT, "last": torch.zeros(1, length, dtype=torch.bool)}
    other = rows | {
        "vector": rows["vector"].clone()
    }  # the context is an episode of its own, and the one before another
    other["vector"][:, : length - CONTEXT] = 1 - other["vector"][:, : length - CONTEXT]
    ways = []
    for one in (rows, other):
        env = as_env(memory, starts=one, mode=True)
        env.reset(seed=0)
        ways.append(stepped(env, np.array([0, 1, 2]))[0])
    assert np.abs(ways[0][0]["vector"] - ways[1][0]["vector"]).max() > 1e-6


def test_a_dream_begins_where_it_says_in_a_recording(runs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A recording's part, its chunks and streams: the dream is that of the row which ends at `info`, and never at an end."""
    loaded = app_of("dreamer").load(runs / "dreamer")
    with make_vec("toy:catch", 2, workers=0) as envs:
        writer, kept = Writer(tmp_path / "R", About.of(envs, "toy:catch"), streams={"train": 2}), []
        for t in range(40):
            kept.append(envs.reset(0) if t == 0 else envs.step(np.eye(3, dtype=np.float32)[[t % 3, 1]]))
            writer.add("train", kept[-1])
        writer.finish([])
    env = as_env(loaded, starts=tmp_path / "R", context=CONTEXT, mode=True)
    places = set()
    for seed in range(30):
        begun, info = env.reset(seed=seed)
        stream, end = info["stream"], info["step"]
        places.add((stream, end))
        assert not kept[end]["last"][stream]
        row = {key: np.stack([one[key][stream] for one in kept[end - CONTEXT + 1 : end + 1]])[None] for key in kept[0]}
        again = as_env(loaded, starts=row, mode=True)
        assert same(begun, again.reset(seed=0)[0], 0)
    assert len(places) > 15 and {stream for stream, _ in places} == {0, 1}
    with pytest.raises(UserError, match=r"a row of 5 steps was asked of .*held_out, which holds 0 of each stream"):
        as_env(loaded, starts=tmp_path / "R", part="held_out", context=CONTEXT)


def test_nothing_is_changed_and_nothing_is_kept(runs: pathlib.Path) -> None:
    folder = runs / "dreamer"
    files = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}
    env = as_env(folder, context=CONTEXT, device="cpu")
    agent = env.parts.dreams.agent
    before = {name: value.clone() for name, value in agent.state_dict().items()}
    drawn = agent.source.state_dict()["state"]
    env.reset(seed=0)
    for _ in range(5):
        env.step(env.action_space.sample())
    env.simulate(np.eye(3, dtype=np.float32)[None])
    dreams = env.parts.dreams
    assert not agent.training and not dreams.latent.deter.requires_grad
    assert all(value.equal(before[name]) for name, value in agent.state_dict().items())
    assert agent.source.state_dict()["state"].equal(drawn)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()} == files
    held = [weakref.ref(agent), weakref.ref(dreams), weakref.ref(env.parts.starts)]
    env.close()
    env.close()
    del agent, dreams
    gc.collect()
    assert [one() for one in held] == [None, None, None]
    with pytest.raises(Exception, match="was closed"):
        env.reset()


def test_what_cannot_be_is_one_sentence(runs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    storm = app_of("storm").load(runs / "storm")
    row = played(storm, CONTEXT)

    def refused(words: str, run: Any = storm, **options: Any) -> None:
        with pytest.raises(UserError, match=words) as told:
            as_env(run, **{"context": CONTEXT, **options})
        assert "\n" not in str(told.value)

    refused("there is no run in", tmp_path)
    refused(
        "holds an agent of 'nobody', which is not installed here", written(tmp_path / "a", '[run]\napp = "nobody"\n')
    )
    refused("at least 1, not 0", context=0)
    refused("holds 65 steps, and 5 observed with 61 dreamed are more", horizon=61)
    refused("a row of 500 steps was asked of", context=500)
    refused("the rows lack \\['action'\\]", starts={"image": row["image"]})
    refused("'action' is \\(1, 5, 2\\)", starts=row | {"action": row["action"][..., :2]})
    refused("of the rows every step there ends", starts=row | {"last": torch.ones(1, CONTEXT, dtype=torch.bool)})
    refused("there is no recording in", starts=tmp_path)
    refused("there is no replay in", dataclasses.replace(storm, logdir=tmp_path))
    refused("observations are 'decoded' or 'latent'", observations="seen")
    refused("render_mode='rgb_array'", render_mode="human")
    refused("shows no image", app_of("po_dreamer").load(runs / "po_dreamer"), render_mode="rgb_array")
    env = as_env(storm, context=CONTEXT)
    env.reset(seed=0)
    with pytest.raises(UserError, match=r"simulate takes actions \(k, h, 3\)"):
        env.simulate(np.zeros((2, 3)))
    with pytest.raises(UserError, match="61 actions ahead were asked for, and this model can hold 60 more"):
        env.simulate(np.zeros((1, 61, 3)))


def written(folder: pathlib.Path, text: str) -> pathlib.Path:
    folder.mkdir()
    (folder / "config.toml").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("name", "task", "words"),
    [
        ("mappo", "toy:leavers", "no world model"),
        ("po_dreamer", "toy:doors_team", "agents, and a dream as an environment has a single one"),
    ],
)
def test_no_world_model_and_no_team(runs: pathlib.Path, name: str, task: str, words: str) -> None:
    app = app_of(name)
    config = dataclasses.replace(resolve(app, "tiny"), task=task, device="cpu", precision="fp32")
    with make_vec(task, 1, workers=0) as envs:
        agent, team = build(app, config, envs), team_of(envs)
        spaces = envs.observation_space, envs.action_space, envs.action_spec.size
        made = Loaded(app, config, 0, {}, agent, *spaces, team=team)
    with pytest.raises(UserError, match=words):
        as_env(made)


def test_without_gymnasium_it_names_the_extra(runs: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "wm_run.dream_env", raising=False)
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(UserError, match=r"needs gymnasium: install wm-run\[gym\]"):
        as_env(runs / "dreamer")


def test_numbers_that_go_on_for_ever_act_in_their_own_units(runs: pathlib.Path) -> None:
    """A continuous task, at random weights: native actions in their bounds, vectors in [-1, 1], observations in theirs."""
    app = app_of("dreamer")
    config = dataclasses.replace(resolve(app, "tiny"), task="gym:Pendulum-v1", device="cpu", precision="fp32")
    with make_vec(config.task, 1, workers=0) as envs:
        agent = build(app, config, envs)
        spaces = envs.observation_space, envs.action_space, envs.action_spec.size
        made = Loaded(app, config, 0, {}, agent, *spaces, sources=envs.sources)
    rng = np.random.default_rng(0)
    rows = {"vector": rng.normal(size=(4, 3, 3)).astype(np.float32), "action": rng.uniform(-1, 1, (4, 3, 1))}
    env = as_env(made, starts=rows, mode=True)
    check_env(env)
    assert env.action_space.high.tolist() == [2] and env.vector(np.array([1.0])).tolist() == [0.5]
    env.reset(seed=0)
    before = env.state()
    told = env.simulate(np.full((1, 4, 1), 0.5))
    env.load_state(before)
    _, rewards, _ = stepped(env, np.full((4, 1), 1.0, np.float32))
    assert np.abs(told.reward[0].numpy() - rewards).max() < 1e-6


def test_rows_that_end_an_episode_begin_no_dream() -> None:
    last = np.array([[False, True], [False, False], [False, True]])
    rows = {"vector": np.arange(6.0, dtype=np.float32).reshape(3, 2, 1), "action": np.zeros((3, 2, 1)), "last": last}
    steps, places = Given(rows, ["vector"], 1).draw([np.random.default_rng(seed) for seed in range(8)])
    assert places[:, 0].tolist() == [1] * 8 and steps["vector"][:, :, 0].tolist() == [[2, 3]] * 8
    assert steps["reset"].tolist() == [[True, False]] * 8
