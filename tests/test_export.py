"""`export` of runs of every app of a single agent, and docs/export.md's loop, which may not import torch."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pathlib
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from wm_core.errors import UserError
from wm_run.app import App
from wm_run.cli import main
from wm_run.compared import Compared, Comparison
from wm_run.configs import resolve
from wm_run.converted import Arrays, Runner, convert
from wm_run.export import written
from wm_run.loading import build, environments, load, with_world
from wm_run.noise import Given
from wm_run.programs import Program, programs
from wm_run.teams import Team

ROOT = pathlib.Path(__file__).resolve().parents[1]
RUNS = ROOT / "tests" / "old_runs" / "2028e95"
APPS = ("dreamer", "po_dreamer", "r2i", "storm")
FILES = {f"{name}.{kind}" for name in ("observe", "policy", "dream") for kind in ("onnx", "pt2")}
(LOOP,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.DOTALL)
# stands for a robot: shows what was recorded, keeps the actions; torch cannot be imported
ROBOT = """
import sys
sys.modules["torch"] = None
import numpy as np
class Env:
    def __init__(self):
        held = np.load("../seen.npz")
        self.first, self.at, self.actions = held["first"], -1, []
        self.seen = {key[5:]: held[key] for key in held if key.startswith("seen.")}
    def reset(self):
        return self.step(None)[0]
    def step(self, action):
        self.actions += [] if action is None else [action]
        self.at += 1
        if self.at == len(self.first):
            return None, False
        return {key: value[self.at] for key, value in self.seen.items()}, bool(self.first[self.at])
env = Env()
"""


def app_of(name: str) -> App:
    found: App = importlib.import_module(f"{name}.cli").APP
    return found


def uniform_and_normal(seed: int) -> Given:
    """The draws of docs/export.md."""
    random = np.random.default_rng(seed)
    draw: dict[str, Callable[..., Any]] = {"uniform": random.random, "normal": random.standard_normal}
    return Given(lambda kind, shape: torch.from_numpy(draw[kind](shape, dtype=np.float32)))


@pytest.mark.parametrize("name", APPS)
def test_a_robot_without_torch_acts_as_the_agent_does(
    name: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tarfile.open(RUNS / f"{name}.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    main(app_of(name), ["export", str(tmp_path / name), "--out", str(tmp_path / "out")])
    told = capsys.readouterr().out
    assert re.search(
        r"over an episode \(\d+ steps\) and \d dreams? \(\d+ steps\): largest difference \S+ in onnx, ", told
    )
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES | {"card.json", "carry.npz"}
    assert card["compared"]["ended"] and max(card["compared"]["largest"].values()) <= 1e-5 == card["compared"]["limit"]

    loaded = load(app_of(name), tmp_path / name, device="cpu")
    loaded.agent.source = uniform_and_normal(0)  # type: ignore[assignment]
    seen, firsts, actions, carry = [], [], [], None
    with closing(environments(loaded.app, loaded.config, 1)) as envs:
        step = envs.reset(seed=3)
        while sum(firsts) < 3:  # two episodes and a step
            observation = {key: step[key][0] for key in loaded.observation_space.spaces}
            _, carry = loaded.policy(observation, carry, first=bool(step["first"][0]))
            seen, firsts, actions = [*seen, observation], [*firsts, bool(step["first"][0])], [*actions, carry["action"]]
            step = envs.step(carry["action"][None])
    held = {f"seen.{key}": np.stack([one[key] for one in seen]) for key in seen[0]}
    np.savez(tmp_path / "seen.npz", first=np.array(firsts), **held)  # type: ignore[arg-type]
    (tmp_path / "out" / "robot.py").write_text(ROBOT + LOOP + "\nnp.save('../actions.npy', np.stack(env.actions))\n")
    done = subprocess.run(
        [sys.executable, "robot.py"], cwd=tmp_path / "out", capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "actions.npy"), np.stack(actions), atol=1e-5)


def test_the_loop_is_short() -> None:
    assert len([line for line in LOOP.partition("known = dict(")[2].splitlines() if line]) <= 10
    assert "torch" not in LOOP


# ---- without files: the stand-ins of every variant, compared as `export` compares


def eager(program: Program) -> Runner:
    def run(given: Mapping[str, NDArray[Any]]) -> Arrays:
        found = program.module(*(torch.as_tensor(given[name]) for name in program.inputs))
        return {name: value.numpy() for name, value in zip(program.outputs, found, strict=True)}

    return run


def compared(app: App, spoil: Callable[[list[Program]], None] = lambda made: None, **numbers: Any) -> Compared:
    """A new agent of the preset tiny beside its programs, over an episode."""
    torch.manual_seed(0)
    ablation = numbers.pop("ablation", "")
    config = dataclasses.replace(resolve(app, "tiny", ablation=ablation), device="cpu", precision="fp32", **numbers)
    with closing(environments(app, config, 1)) as envs:
        agent = with_world(app, build(app, config, envs))
        with torch.no_grad():  # else a policy chooses by noise alone
            for parameter in agent.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        spaces = envs.observation_space.spaces.items()
        seen = {key: torch.from_numpy(np.zeros((1, *space.shape), space.dtype)) for key, space in spaces}
        made = programs(agent, seen, envs.action_spec.size)
        spoil(made)
        return Comparison(agent, made, {"eager": {one.name: eager(one) for one in made}}).play(envs, seed=1, limit=80)


def variants() -> Iterator[Any]:
    yield "storm", {"acting_context": 3}
    yield "storm", {"acting_context": 3, "resets": True}
    yield "storm", {"act_on": "posterior"}
    yield "r2i", {"resets": "never", "discretise": "zoh"}
    yield "r2i", {"posterior": "recurrent", "policy_input": "full"}
    yield "dreamer", {"task": "gym:Pendulum-v1"}
    yield "po_dreamer", {"nets": "2025", "row_start": "stored"}
    yield "po_dreamer", {"branches": "mg", "memory_sight": "episode", "positions": "age"}
    yield "po_dreamer", {"branches": "co+co"}


@pytest.mark.parametrize(("name", "numbers"), list(variants()))
def test_the_step_of_every_variant_is_the_agents(name: str, numbers: dict[str, Any]) -> None:
    found = compared(app_of(name), **numbers)
    assert found.largest["eager"] <= 1e-5 and found.dreamt >= 15 and found.steps > 4 and found.again == 0


def test_a_step_that_is_another_one_is_refused() -> None:
    def spoil(made: list[Program]) -> None:
        with torch.no_grad():
            next(value for name, value in made[0].module.named_buffers() if name.endswith("decay")).mul_(0.99)

    with pytest.raises(
        UserError, match=r"^the exported step is not this agent's: \S+ differs by .* nothing was written$"
    ):
        compared(app_of("r2i"), spoil)


def test_what_cannot_be_exported_is_one_sentence(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A team, no world model, a folder that is something else: before anything is computed, and nothing is left."""
    with tarfile.open(RUNS / "dreamer.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("mine")
    with pytest.raises(SystemExit):
        main(app_of("dreamer"), ["export", str(tmp_path / "dreamer"), "--out", str(tmp_path / "own")])
    assert "is there and no export of ours" in capsys.readouterr().err
    assert (tmp_path / "own" / "thesis.txt").read_text() == "mine"
    with pytest.raises(SystemExit):
        main(app_of("dreamer"), ["export", str(tmp_path / "dreamer"), "--compare", "0"])
    assert "--compare must be at least 1" in capsys.readouterr().err
    assert not (tmp_path / "dreamer" / "export").exists()


def test_a_team_is_refused_before_anything_is_made(tmp_path: pathlib.Path) -> None:
    """Whatever learns it: the rest of the agent is not asked."""
    loaded: Any = SimpleNamespace(app=None, config=SimpleNamespace(task="toy:whisper"), team=Team(2))
    with pytest.raises(UserError, match=r"^`export` takes agents that act alone, and toy:whisper has a team of 2"):
        written(loaded, tmp_path / "out", 1)
    assert not list(tmp_path.iterdir())


def test_an_operation_without_a_translation_is_named(tmp_path: pathlib.Path) -> None:
    class Spectrum(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            return (torch.linalg.eigvals(x).real,)

    with pytest.raises(UserError, match=r"^`observe` of this agent cannot be exported .*eig.* needs a stand-in"):
        convert(Program("observe", Spectrum(), {"x": torch.eye(2)}, ("y",), {}), tmp_path)
