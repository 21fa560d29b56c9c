"""Run folders of commit 2028e95, one an app, each killed between its checkpoint and its end: they go on today.

tests/old_runs/README.md says how they were made. What a later version changes must not change them.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import pathlib
import tarfile
import tomllib

import numpy as np
import pytest
from torch import Tensor
from wm_core.agent import Agent
from wm_run import checkpoint, dreams
from wm_run.app import App
from wm_run.cli import main
from wm_run.config import WAS
from wm_run.loading import restore

HERE = pathlib.Path(__file__).parent / "old_runs" / "2028e95"
APPS = ("dreamer", "po_dreamer", "r2i", "storm")
STEP, POSITION = 60, {"dreamer": 34, "po_dreamer": 59, "r2i": 34, "storm": 34}  # of the checkpoint


def app_of(name: str) -> App:
    found: App = importlib.import_module(f"{name}.cli").APP
    return found


@pytest.fixture
def run(request: pytest.FixtureRequest, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A copy of one app's folder; films are short."""
    monkeypatch.setattr(dreams, "VIDEO_STEPS", 4)
    monkeypatch.setattr(dreams, "DREAM_STEPS", 20)
    with tarfile.open(HERE / f"{request.param}.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    return tmp_path / str(request.param)


every_app = pytest.mark.parametrize("run", APPS, indirect=True)


def moments(agent: Agent) -> dict[str, list[Tensor]]:
    """First and second moment by the parameter's name."""
    names = {id(parameter): name for name, parameter in agent.named_parameters()}
    rules = getattr(agent.optimiser, "rules", {"": agent.optimiser}).values()
    every = [one for rule in rules for one in zip(rule.params, rule.first, rule.second, strict=True)]
    return {names[id(parameter)]: [first, second] for parameter, first, second in every}


@every_app
def test_it_goes_on(run: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At its checkpoint, killed at step 80 as it was, to more steps than it was asked for at first."""
    before = checkpoint.load(checkpoint.latest(run) or run)
    assert before.step == STEP and before.state["replay"]["position"] == POSITION[run.name]
    logged = (run / "scores.jsonl").read_bytes()[: before.state["run"]["scores.jsonl"]]
    main(app_of(run.name), ["train", "--logdir", str(run), "--steps", "120"])
    said = capsys.readouterr().err
    assert f"resuming {run} at step 60; steps: 110 -> 120\n" in said
    assert said.count("config.toml is taken at its word") == 1
    for odd in ("passed over", "damaged", "evicted", "as later updates left them", "anew"):
        assert odd not in said
    after = checkpoint.load(checkpoint.latest(run) or run)
    assert after.step >= 120
    assert after.state["replay"]["position"] - before.state["replay"]["position"] in range(30, 61)  # 2 environments
    assert after.state["agent"]["clock"]["updates"] > before.state["agent"]["clock"]["updates"]
    assert (run / "scores.jsonl").read_bytes().startswith(logged)
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps)) and steps[-1] == 120


@every_app
def test_it_acts_and_is_evaluated(run: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(app_of(run.name), ["eval", str(run), "--episodes", "1"])
    result = json.loads(capsys.readouterr().out)
    assert result["step"] == STEP and np.isfinite(result["score"]) and result["changed"] == {}
    agent = importlib.import_module(run.name).load(run)
    assert agent.step == STEP
    action, carry = agent.policy(agent.observation_space.sample())
    assert agent.action_space.contains(action)
    agent.policy(agent.observation_space.sample(), carry)


@every_app
def test_each_parameter_gets_its_own_moments(run: pathlib.Path) -> None:
    """The optimiser's state of that commit is a list in the order of its parameters; their norms were written down then."""
    app = app_of(run.name)
    agent = restore(app, run, dataclasses.replace(app.config(), **fields_of(run, app))).agent
    agent.load_state(checkpoint.load(checkpoint.latest(run) or run).state["agent"])
    expected: dict[str, list[float]] = json.loads((HERE / "moments.json").read_text())[run.name]
    found = {name: [float(one.double().norm()) for one in both] for name, both in moments(agent).items()}
    assert found.keys() == expected.keys()
    for name, norms in found.items():
        assert norms == pytest.approx(expected[name], rel=1e-5), name


def fields_of(run: pathlib.Path, app: App) -> dict[str, object]:
    """The fields of its config.toml."""
    saved = tomllib.loads((run / "config.toml").read_text())
    names = {field.name for field in dataclasses.fields(app.config)} & saved.keys()
    return {name: tuple(saved[name]) if isinstance(saved[name], list) else saved[name] for name in names}


@pytest.mark.parametrize("name", APPS)
def test_a_changed_default_leaves_old_runs_alone(name: str) -> None:
    """Every field that is new since, or has another default, says what it was: wm_run.config.now."""
    then: dict[str, object] = json.loads((HERE / "defaults.json").read_text())[name]
    for field in dataclasses.fields(app_of(name).config):
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        if field.name not in then:
            assert WAS in field.metadata, f"{field.name} is new: now({default!r}, was=...) says what old runs did"
        elif field.metadata.get(WAS, default) != then[field.name]:
            pytest.fail(f"{field.name} was {then[field.name]!r}: now({default!r}, was={then[field.name]!r})")


def test_no_folder_names_a_machine() -> None:
    for name in APPS:
        with tarfile.open(HERE / f"{name}.tar.xz") as packed:
            for member in packed.getmembers():
                read = packed.extractfile(member)
                if read is not None and member.name.endswith((".toml", ".json", ".jsonl")):
                    text = read.read()
                    assert not any(place in text for place in (b'"/', b"/tmp/", b"/home/", b"/Users/")), member.name
