"""The microscope on small runs of several apps: the same rows for all, equal numbers every time, no run folder touched."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dmawm.cli import APP as DMAWM
from dreamer.cli import APP as DREAMER
from env_adapters import make_vec
from mappo.cli import APP as MAPPO
from po_dreamer.cli import APP as PO_DREAMER
from storm.cli import APP as STORM
from wm_core.errors import UserError
from wm_run import loading
from wm_run.cli import main
from wm_run.command import main as wm_run
from wm_run.microscope.__main__ import main as command
from wm_run.microscope.command import Microscope, microscope
from wm_run.microscope.measured import ends, fitted, measure, probed
from wm_run.microscope.passing import folded, look
from wm_run.microscope.rows import Rows, played, recorded
from wm_run.recorder import Writer
from wm_run.recording import About

TINY = (
    "--preset",
    "tiny",
    "--device",
    "cpu",
    "--workers",
    "0",
    "--final-video",
    "False",
    "--steps",
    "8",
    "--envs",
    "2",
)
MAZE = ("--task", "toy:cue_maze", "--env.length", "2", "--env.gap", "1", "--learning-starts", "999")
SMALL: dict[str, Any] = {"rows": 12, "context": 10, "imagined": 3, "device": "cpu"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    wanted = {"dreamer": DREAMER, "dreamer.1": DREAMER, "po_dreamer": PO_DREAMER, "storm": STORM}
    for seed, (name, app) in enumerate(wanted.items()):
        main(app, ["train", *TINY, *MAZE, "--logdir", str(folder / name), "--seed", str(seed)])
    return {name: folder / name for name in wanted}


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random play in the maze, 4 streams of 120 records held out."""
    folder = tmp_path_factory.mktemp("recording") / "maze"
    with make_vec("toy:cue_maze", 4, length=2, gap=1) as envs:
        writer = Writer(folder, About.of(envs, "toy:cue_maze"), streams={"train": 4, "held_out": 4})
        rng = np.random.default_rng(0)
        for part, count in (("train", 20), ("held_out", 120)):
            step = envs.reset(seed=len(part))
            for _ in range(count):
                writer.add(part, step | envs.told())
                step = envs.step(np.eye(4, dtype=np.float32)[rng.integers(4, size=4)])
        writer.finish([{"who": "random", "share": 1.0, "steps": 80, "seed": 0}])
    return folder


def prints(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_rows_of_a_recording_through_runs_of_three_apps(
    runs: dict[str, Path], recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, before = next(iter(runs.values())).parent, prints(next(iter(runs.values())).parent)
    options = Microscope(tuple(map(str, runs.values())), data=str(recording), out=str(tmp_path / "m"), **SMALL)
    assert microscope(options) == 0
    said, text = capsys.readouterr().out, (tmp_path / "m.json").read_text()
    assert str(tmp_path / "m.html") in said and prints(folder) == before
    result = json.loads(text)
    assert result["rows"]["task"] == "toy:cue_maze" and result["rows"]["rows"] == 12
    assert [(run["app"], run["seed"]) for run in result["runs"]] == [
        ("dreamer", 0), ("dreamer", 1), ("po_dreamer", 2), ("storm", 3),
    ]  # fmt: skip
    for run in result["runs"]:
        assert run["marks"] == []
        errors = run["errors"]["vector"]
        assert errors["copy"] == result["runs"][0]["errors"]["vector"]["copy"]  # of the rows, whoever looks at them
        assert errors["mean"] == result["runs"][0]["errors"]["vector"]["mean"]
        assert run["rows_at_horizon"] == result["runs"][0]["rows_at_horizon"] and errors["model"][2] is None
        assert run["probes"]["fact"]["kind"] == "share right" and run["value"]["steps"] > 0
        assert len(run["past"]["gradient"]) == 10 and run["past"]["lengths"] == [1, 2, 4, 8, 10]
        assert (run["recalled"] is not None) == (run["app"] == "po_dreamer")
    recalled = result["runs"][2]["recalled"]
    assert recalled["earlier"] > 0.3 and recalled["found"] > 1  # an episode has three records, the context ten
    page = (tmp_path / "m.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)|https?://|@import|url\((?!#)""", page)
    for word in ("po_dreamer", "fact: share right", "Recalled", "records of the context that are seen"):
        assert word in page

    two = (str(runs["po_dreamer"]), str(runs["dreamer"]))
    microscope(Microscope(two, data=str(recording), out=str(tmp_path / "again"), **SMALL))
    again = {run["app"]: run for run in json.loads((tmp_path / "again.json").read_text())["runs"]}
    assert again == {"po_dreamer": result["runs"][2], "dreamer": result["runs"][0]}  # whoever else is looked at


def test_without_a_recording_the_first_run_plays_for_all(runs: dict[str, Path], tmp_path: Path) -> None:
    two = (str(runs["dreamer"]), str(runs["storm"]))
    microscope(Microscope(two, out=str(tmp_path / "m"), **SMALL))
    result = json.loads((tmp_path / "m.json").read_text())
    assert result["rows"]["source"] == "fresh episodes of dreamer, toy:cue_maze"
    one, other = result["runs"]
    assert one["errors"]["vector"]["copy"] == other["errors"]["vector"]["copy"] and set(one["probes"]) == {"fact"}


def test_pictures_become_a_film_and_rows_of_another_protocol_are_marked(tmp_path: Path) -> None:
    for name, more in (("plain", ()), ("wide", ("--env.grid", "16"))):
        main(DREAMER, ["train", *TINY, "--learning-starts", "999", *more, "--logdir", str(tmp_path / name)])
    microscope(Microscope((str(tmp_path / "plain"), str(tmp_path / "wide")), out=str(tmp_path / "m"), **SMALL))
    result, page = json.loads((tmp_path / "m.json").read_text()), (tmp_path / "m.html").read_text()
    assert "data:image/webp;base64," in page
    marked = [run["marks"] for run in result["runs"]]
    assert sum(map(bool, marked)) == 1 and "trained under grid" in str(marked) and "trained under grid" in page


def test_the_last_row_is_dreamed_as_if_it_were_alone(runs: dict[str, Path], recording: Path) -> None:
    """How many rows there are beside it, and what lies behind the context, changes nothing of a row's posterior."""
    agent = loading.load(DREAMER, runs["dreamer"]).agent
    rows = recorded(recording, "held_out", 8, 10, 3, 0)
    steps, _ = folded(agent, rows)  # type: ignore[arg-type]
    whole = look(agent, steps, 10, sees=10, seed=0)  # type: ignore[arg-type]
    later = {key: value.clone() for key, value in steps.items()}
    later["vector"][:, 10:] = 9
    other = look(agent, later, 10, sees=10, seed=0)  # type: ignore[arg-type]
    assert torch.equal(whole.imagined, other.imagined)
    assert not torch.equal(whole.features, other.features)
    assert not torch.equal(whole.errors["vector"]["model"], other.errors["vector"]["model"])


def test_a_model_with_few_positions_sees_the_last_of_the_context_and_is_marked(recording: Path, tmp_path: Path) -> None:
    main(STORM, ["train", *TINY, *MAZE, "--positions", "10", "--acting-context", "4", "--length", "6", "--dream-context",
                 "4", "--horizon", "4", "--logdir", str(tmp_path / "storm")])  # fmt: skip
    options = Microscope((str(tmp_path / "storm"),), data=str(recording), out=str(tmp_path / "m"), **SMALL)
    microscope(options)
    run = json.loads((tmp_path / "m.json").read_text())["runs"][0]
    assert run["sees"] < 10 and "positions for the last" in run["marks"][0]


def test_agents_of_a_team_are_rows_that_stay_together(tmp_path: Path) -> None:
    main(
        DMAWM, ["train", *TINY, "--task", "toy:whisper", "--learning-starts", "999", "--logdir", str(tmp_path / "team")]
    )
    asked = SMALL | {
        "rows": 7,
        "context": 6,
        "imagined": 1,
    }  # 21 rows of agents, of which the model hears three at a time
    microscope(Microscope((str(tmp_path / "team"),), out=str(tmp_path / "m"), **asked))
    run = json.loads((tmp_path / "m.json").read_text())["runs"][0]
    assert (
        run["rows_at_horizon"][0] % 3 == 0 < run["rows_at_horizon"][0] <= 21
        and len(run["errors"]["vector"]["model"]) == 1
    )


@pytest.mark.parametrize("credit", ["zero", "team"])
def test_an_end_is_what_that_model_learns_as_one(credit: str, tmp_path: Path) -> None:
    """Where a dead agent's continuation ends with it, its value is what came until then, and nothing is asked of it after."""
    folder = tmp_path / "team"
    learning = ("--env.times", "2,4,5", "--learning-starts", "999", "--absent", credit, "--absorbing", "2")
    main(DMAWM, ["train", *TINY, "--task", "toy:leavers", *learning, "--logdir", str(folder)])
    loaded = loading.load(DMAWM, folder, device="cpu")
    rows = played(loaded, 24, 8, 3, 0)
    steps = folded(loaded.agent, rows)[0]
    team, dead = steps["terminal"], ~steps["alive"]
    assert (dead & ~team).sum() > 10 < team.sum()
    own = team | dead if credit == "zero" else team
    assert torch.equal(ends(loaded.agent, rows, steps), own)

    found, _ = measure(loaded.agent, rows, discount=0.9, seed=0)
    expected, known = [], 0
    for reward, over in zip(steps["reward"].tolist(), (own | steps["last"]).tolist(), strict=True):
        for t in range(rows.length):
            end = next((k for k in range(t, rows.length) if over[k]), t)
            if end > t:
                known += 1
                expected.append(sum(0.9 ** (k - t - 1) * reward[k] for k in range(t + 1, end + 1)))
    count = found["value"]["count"]
    came = sum(n * mean for n, mean in zip(count, found["value"]["came"], strict=True)) / sum(count)
    assert sum(count) == known and came == pytest.approx(sum(expected) / known, rel=1e-4)

    begun, going = ~(own | steps["last"])[:, 7], ~(own | steps["last"])[:, 8:]
    assert found["own"]["rows"] == [
        int(live.sum()) for live in (begun, begun & going[:, 0], begun & going[:, :2].all(1))
    ]
    assert found["own"]["end"]["came"][0] == pytest.approx((~going[begun, 0]).float().mean().item())

    for weight in loaded.agent.world.heads["reward"].parameters():  # which says 0 as long as it is new
        torch.nn.init.normal_(weight, std=0.5)
    before, after = (other_actions(loaded, steps, rows, at) for at in (0, 1))
    assert torch.equal(before.ahead.reward, after.ahead.reward) and not torch.equal(before.own.reward, after.own.reward)
    loaded.agent.alone = True  # a policy that is not learned has no dreams of its own
    assert measure(loaded.agent, rows, discount=0.9, seed=0)[0]["own"] is None


def other_actions(loaded: Any, steps: Any, rows: Rows, at: int) -> Any:
    """What is seen of rows with a policy that prefers actions otherwise, by `at`."""
    actor = [value for name, value in loaded.agent.behaviour.networks()["actor"].named_parameters() if "out" in name]
    for weight in actor:
        weight.data.fill_(0.0)
    actor[-1].data[..., 1 + at] = 9.0
    return look(loaded.agent, steps, rows.context, sees=rows.context, seed=0, agents=3)


def test_a_mistake_at_the_command_line_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(tmp_path / "nothing"), "--out", str(tmp_path / "m")]
    verb = ["microscope", *words]
    for start, asked in ((command, words), (wm_run, verb), (wm_run, [*verb, "--env.x", "1"])):
        assert start(asked) == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 1 and ("there is no run in" in said[0] or "leave out --env.x" in said[0])
    assert not list(tmp_path.iterdir())


def refused(**options: Any) -> str:
    with pytest.raises(UserError) as error:
        microscope(Microscope(**(SMALL | options)))
    return str(error.value)


def test_what_cannot_be_looked_at_is_one_sentence(runs: dict[str, Path], recording: Path, tmp_path: Path) -> None:
    dreamer, out = str(runs["dreamer"]), str(tmp_path / "m")
    assert "needs the folders of runs" in refused(runs=(), out=out)
    assert "must be at least 1" in refused(runs=(dreamer,), out=out, imagined=0)
    assert "no recording in" in refused(runs=(dreamer,), out=out, data=str(tmp_path))
    said = refused(runs=(dreamer,), out=out, data=str(recording), context=500, imagined=9)
    assert "a row of 509 records, --context 500 and --imagined 9 of them" in said
    main(DREAMER, ["train", *TINY, "--learning-starts", "999", "--logdir", str(tmp_path / "catch")])
    said = refused(runs=(str(tmp_path / "catch"),), out=out, data=str(recording))
    assert "sees 'image'" in said and "no such entry" in said
    main(MAPPO, ["train", *TINY, "--logdir", str(tmp_path / "mappo")])
    assert "learns no world model" in refused(runs=(str(tmp_path / "mappo"),), out=out)
    config = runs["storm"] / "config.toml"
    text = config.read_text()
    try:
        config.write_text(text.replace('app = "storm"', 'app = "nowhere"'))
        assert "'nowhere', which is not installed" in refused(runs=(str(runs["storm"]),), out=out)
    finally:
        config.write_text(text)
    assert not (tmp_path / "m.json").exists()


def test_probes_are_tested_on_rows_that_share_no_record_with_those_fitted_to(
    runs: dict[str, Path], recording: Path
) -> None:
    rows = recorded(recording, "held_out", 40, 10, 3, 0)
    fit, test = rows.halves()
    assert len(fit) > 5 and len(test) == 20
    spans = [
        {(int(rows.stream[b]), int(rows.start[b]) + t) for b in half.tolist() for t in range(13)}
        for half in (fit, test)
    ]
    assert not spans[0] & spans[1]


def test_halves_by_time_and_by_streams_share_no_record() -> None:
    """Rows of 4 records by hand, two streams side by side: by time the one that reaches into the later half is in neither, by
    streams nobody is left out."""
    start = torch.tensor([0, 3, 6, 10, 0, 4, 8, 12])
    stream = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    by_time = Rows({"first": torch.zeros(8, 4)}, {}, 2, stream, start, {})
    by_streams = dataclasses.replace(by_time, parted="streams")
    assert [sorted(half.tolist()) for half in by_time.halves()] == [[0, 4], [2, 3, 6, 7]]  # 3-6 and 4-7 reach into 6
    assert [half.tolist() for half in by_streams.halves()] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    uneven = dataclasses.replace(by_streams, stream=torch.tensor([0, 0, 0, 0, 0, 0, 5, 9]))
    assert [half.tolist() for half in uneven.halves()] == [[0, 1, 2, 3, 4, 5], [6, 7]]
    with pytest.raises(UserError, match="all of one stream, which only time parts: leave out --halves streams"):
        dataclasses.replace(by_streams, stream=torch.zeros(8, dtype=torch.long)).halves()


def test_a_published_agent_is_beside_the_run_that_it_was(
    runs: dict[str, Path], recording: Path, tmp_path: Path
) -> None:
    main(DREAMER, ["eval", str(runs["dreamer"]), "--episodes", "1"])
    main(DREAMER, ["publish", str(runs["dreamer"]), "--to", str(tmp_path / "agent")])
    found = {}
    for first in (str(tmp_path / "agent"), str(runs["dreamer"])):
        both = (first, str(runs["dreamer.1"]))
        microscope(Microscope(both, data=str(recording), out=str(tmp_path / "m"), **SMALL))
        found[first] = json.loads((tmp_path / "m.json").read_text())["runs"]
    (agent, one), (run, other) = found.values()
    assert agent["seed"] == 0 and agent["label"] == one["label"]  # seeds of one method
    assert one == other and agent["errors"] == run["errors"] and agent["protocol"] == run["protocol"]


def test_nothing_held_out_is_said(runs: dict[str, Path], recording: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(recording, tmp_path / "copy"))
    text = json.loads((folder / "held_out.json").read_text()) | {"position": 0, "sums": []}
    (folder / "held_out.json").write_text(json.dumps(text))
    with pytest.raises(UserError, match="held_out of this recording holds nothing: take the other part"):
        microscope(Microscope((str(runs["dreamer"]),), data=str(folder), out=str(tmp_path / "m"), **SMALL))


def test_what_the_past_held_is_scored_against_what_was_known_from_the_rows_fitted_to(
    runs: dict[str, Path], recording: Path
) -> None:
    """Of numbers that grow from row to row, so that the mean of one half is not that of the other."""
    agent = loading.load(DREAMER, runs["dreamer"]).agent
    rows = recorded(recording, "held_out", 48, 10, 3, 0)
    number = torch.randn(48, 13, 1, generator=torch.Generator().manual_seed(0)) + rows.start[:, None, None]
    rows = dataclasses.replace(rows, told={"number": number})
    result, found = measure(agent, rows, discount=0.9, seed=0)  # type: ignore[arg-type]
    (fit, test), (steps, _) = rows.halves(), folded(agent, rows)  # type: ignore[arg-type]
    one = fitted(found, number, fit, 10)
    assert one is not None and result["past"]["lengths"][-1] == 10
    short = look(agent, steps, 10, sees=10, seed=0, whole=False)  # type: ignore[arg-type]
    said, came = one(short.features[test][:, -1, :])[:, 0], number[test, 9, 0].double()
    wrong, spread = (((guess - came) ** 2).sum() for guess in (said, number[fit].double().mean()))
    assert result["past"]["probes"]["number"][-1] == pytest.approx(float(1 - wrong / spread), abs=1e-6)


def test_a_probe_is_scored_where_the_state_holds_what_is_told(recording: Path, runs: dict[str, Path]) -> None:
    """Posterior features that hold the fact beside noise, and a dream that forgets it after two steps."""
    agent = loading.load(DREAMER, runs["dreamer"]).agent
    rows = recorded(recording, "held_out", 48, 10, 3, 0)
    steps, told = folded(agent, rows)  # type: ignore[arg-type]
    found, fact, (fit, test) = look(agent, steps, 10, sees=10, seed=0), told["fact"], rows.halves()  # type: ignore[arg-type]
    noise = torch.randn(48, 13, 6, generator=torch.Generator().manual_seed(0))
    held, valid = torch.cat([fact, noise], -1), torch.ones(48, 3, dtype=torch.bool)
    dream = torch.cat([held[:, 10:11], held[:, 11:12], held[:, 12:].roll(7, 0)], 1)
    known = dataclasses.replace(found, features=held, imagined=dream)
    one = fitted(known, fact, fit, 10)
    assert one is not None
    scores = probed(one, known, fact, fit, test, valid, 10)
    assert scores["posterior"] == [1.0] * 4 and scores["dream"][:3] == [1.0] * 3 and scores["dream"][3] < 0.6
    assert max(scores["baseline"]) < 0.6 and scores["tested"] == 24
