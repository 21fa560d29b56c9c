"""train, eval, dream and info end to end, on an app without a world model; and an agent loaded to act."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from wm_core.errors import UserError
from wm_run import checkpoint, commands, dreams, filmstrip, scoring
from wm_run.cli import main
from wm_run.episodes import Episode
from wm_run.loading import load
from wm_run.lock import locked
from wm_run.loop import PRIVATE
from wm_run.openloop import OpenLoop
from wm_suite import Group, damaged, page, read, results


def perfect(agent, batch, context, *, seed=0):
    """An open loop of the image, and of its mean as a vector, that predicts the truth, one shade off."""
    true = batch.steps["image"].float() / 255
    first = batch.steps["first"].clone()
    first[:, :context] = False
    image = OpenLoop("image", true, true + 0.1, context, first.cumsum(1) == 0)
    vector = dataclasses.replace(image, key="vector", true=true.mean((2, 3)), predicted=image.predicted.mean((2, 3)))
    return {"image": image, "vector": vector}


@pytest.fixture
def dreaming(monkeypatch):
    """The fake app has no world model to dream with."""
    monkeypatch.setattr(dreams, "openloop", perfect)


@pytest.fixture
def run(fakes, dreaming, quiet, capsys) -> Path:
    main(fakes.app, ["train", "--preset", "tiny", "--steps", "60", "--logdir", "D"])
    return Path("D")


def test_a_run_leaves_what_it_promises_and_says_where(fakes, dreaming, capsys):
    main(fakes.app, ["train", "--preset", "tiny", "--steps", "60", "--logdir", "D"])
    run, step = Path("D"), checkpoint.load(checkpoint.latest("D")).step
    for name in ("config.toml", "protocol.json", "env.json", "metrics.jsonl", "scores.jsonl", "replay"):
        assert (run / name).exists(), name
    videos = {f"policy-{step}.mp4", f"openloop-{step}.mp4", f"openloop-{step}.png"}
    assert {path.name for path in (run / "video").iterdir()} == videos
    protocol = json.loads((run / "protocol.json").read_text())
    assert protocol == {"task": "fake", "repeat": 4, "name": "fake", "sizes": [1, 2]}
    named = [word for word in capsys.readouterr().out.split() if word.startswith("D/")]
    assert {f"D/video/{name}" for name in videos} | {f"D/checkpoint/{step}", "D/scores.jsonl"} == set(named)


def vectors(agent, batch, context, *, seed=0):
    """The same of the vector alone."""
    return {"vector": perfect(agent, batch, context)["vector"]}


def test_a_run_without_images_has_no_video_but_a_picture_of_an_open_loop(fakes, capsys, monkeypatch):
    monkeypatch.setattr(dreams, "openloop", vectors)
    main(fakes.app, ["train", "--preset", "tiny", "--task", "blind", "--steps", "40", "--logdir", "D"])
    step = checkpoint.load(checkpoint.latest("D")).step
    assert {path.name for path in (Path("D") / "video").iterdir()} == {f"openloop-{step}.png"}
    assert json.loads((Path("D") / f"dream/{step}.json").read_text())["error"]["model"][0] == pytest.approx(0.01)
    capsys.readouterr()
    main(fakes.app, ["dream", "D", "--observed", "2", "--imagined", "4"])
    out = capsys.readouterr().out
    assert out.startswith("mean squared error of 'vector'") and out.endswith(f"D/video/openloop-{step}.png\n")


def test_what_is_not_decoded_cannot_be_dreamed(fakes, quiet, capsys, monkeypatch):
    main(fakes.app, ["train", "--preset", "tiny", "--task", "blind", "--steps", "40", "--logdir", "D"])
    monkeypatch.setattr(dreams, "openloop", lambda *args, **kwargs: {})
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(fakes.app, ["dream", "D"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "fakeapp: fakeapp decodes no observation of blind: there is nothing to dream\n"


def test_evaluations_on_the_way_log_the_open_loop_by_horizon(fakes, dreaming, quiet, monkeypatch):
    monkeypatch.setattr(dreams, "DREAM_STEPS", 60)
    main(fakes.app, ["train", "--preset", "tiny", "--steps", "60", "--eval-every", "40", "--logdir", "D"])
    rows = [json.loads(line) for line in (Path("D") / "metrics.jsonl").read_text().splitlines()]
    (row,) = [row for row in rows if "eval/score" in row]
    assert row["health/openloop_1"] == pytest.approx(0.01, abs=1e-4)
    assert 0 < row["health/openloop_copy_1"] < row["health/openloop_copy_5"]  # the counter in the image runs on
    assert row["health/openloop/vector_1"] == pytest.approx(0.01, abs=1e-4)  # one of several observations


def test_the_default_logdir_has_four_parts(fakes, quiet):
    main(fakes.app, ["train", "--preset", "tiny", "--steps", "20", "--seed", "3"])
    (found,) = Path("runs").iterdir()
    assert found.name.split("-")[1:] == ["fake", "fake", "3"]


def logs(run):
    """Every number but those of the machine: the last line of metrics is written again, at another time."""
    rows = [json.loads(line) for name in ("metrics.jsonl", "scores.jsonl") for line in (run / name).open()]
    return [{name: value for name, value in row.items() if not name.startswith(PRIVATE)} for row in rows]


def test_a_finished_run_started_again_changes_nothing(fakes, run):
    before_it = logs(run)
    before = checkpoint.load(checkpoint.latest(run))
    main(fakes.app, ["train", "--logdir", "D"])
    assert logs(run) == before_it
    assert checkpoint.load(checkpoint.latest(run)).step == before.step


def test_videos_come_by_step_and_at_the_end(fakes, monkeypatch):
    steps = []
    monkeypatch.setattr(dreams, "videos", lambda session, step: steps.append(step) or [])
    main(fakes.app, ["train", "--preset", "tiny", "--steps", "100", "--video-every", "40", "--logdir", "D"])
    assert [step // 40 for step in steps] == [1, 2, 2]
    assert all(step % 40 < 8 for step in steps[:2]) and steps[2] >= 100


def test_videos_disturb_nothing(fakes, dreaming, monkeypatch):
    monkeypatch.setattr(dreams, "DREAM_STEPS", 60)
    for logdir, every in (("plain", "0"), ("filmed", "20")):
        main(fakes.app, ["train", "--preset", "tiny", "--steps", "40", "--video-every", every, "--logdir", logdir])
    plain, filmed = (checkpoint.load(checkpoint.latest(logdir)) for logdir in ("plain", "filmed"))
    assert torch.equal(plain.weights["weight"], filmed.weights["weight"])
    assert plain.state["replay"]["rng"] == filmed.state["replay"]["rng"]


# ---- eval


def test_eval_writes_and_prints_what_a_score_means(fakes, run, capsys):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    capsys.readouterr()
    main(fakes.app, ["eval", "D", "--episodes", "5", "--mode"])
    result = json.loads(capsys.readouterr().out)
    step = checkpoint.load(checkpoint.latest(run)).step
    (path,) = (run / "eval").iterdir()
    assert json.loads(path.read_text()) == result and path.name.startswith(f"{step}-")
    assert (result["step"], result["episodes"], result["acting"], len(result["scores"])) == (step, 5, "mode", 5)
    assert result["score"] == pytest.approx(np.mean(result["scores"]))
    assert result["protocol"] == {"name": "fake", "sizes": [1, 2]}
    assert {path: path.read_bytes() for path in before} == before  # the run itself is untouched


def test_eval_samples_unless_told_otherwise(fakes, run, capsys):
    results = {}
    for option in ("", "--sample", "--mode"):
        capsys.readouterr()
        main(fakes.app, ["eval", "D", *option.split()])
        results[option] = json.loads(capsys.readouterr().out)
    assert results[""] == results["--sample"] and results[""]["acting"] == "sample"
    assert results["--mode"]["scores"] != results[""]["scores"]
    with pytest.raises(SystemExit):
        main(fakes.app, ["eval", "D", "--mode", "--sample"])
    assert "exclude each other" in capsys.readouterr().err


def test_eval_plays_other_episodes_than_training(fakes, run, capsys, monkeypatch):
    seeds = []
    monkeypatch.setattr(scoring, "evaluate", lambda *args, seed, **_: seeds.append(seed) or [Episode(0.0, 1)] * 10)
    main(fakes.app, ["eval", "D"])
    main(fakes.app, ["eval", "D", "--seed", "7"])
    assert len(set(seeds) - {0, 7}) == 2


def test_a_run_is_evaluated_as_its_settings_say(fakes, dreaming, quiet, capsys):
    """Mode, number of episodes and of environments are the run's: on the way, at its end, and for `eval` by itself."""
    words = ["--eval-acting", "mode", "--eval-envs", "5", "--final-episodes", "7", "--eval-every", "100"]
    main(fakes.app, ["train", "--preset", "tiny", "--logdir", "D", *words])
    assert "evaluation  D/eval/" in capsys.readouterr().out
    step = checkpoint.load(checkpoint.latest("D")).step
    (path,) = Path("D/eval").iterdir()
    end = json.loads(path.read_text())
    assert path.name == f"{step}-mode.json"
    assert (end["acting"], end["episodes"], end["environments"], len(end["scores"])) == ("mode", 7, 5, 7)
    rows = [json.loads(line) for line in Path("D/metrics.jsonl").read_text().splitlines()]
    assert [row["eval/episodes"] for row in rows if "eval/score" in row] == [3, 3]
    main(fakes.app, ["eval", "D"])
    assert json.loads(capsys.readouterr().out) == json.loads(path.read_text()) == end
    assert results.newest_eval(read(Path("D"))) == end
    main(fakes.app, ["eval", "D", "--sample", "--episodes", "2"])
    other = json.loads(capsys.readouterr().out)
    assert (other["acting"], other["episodes"], other["environments"]) == ("sample", 2, 2)
    assert results.newest_eval(read(Path("D"))) == end  # what the run wants comes first
    with pytest.raises(SystemExit):
        main(fakes.app, ["eval", "D", "--eval-acting", "sample"])
    assert "give --mode or --sample" in capsys.readouterr().err


def test_a_run_stopped_at_its_end_is_evaluated_when_it_goes_on(fakes, quiet, capsys, monkeypatch):
    played = scoring.play

    def stopped(*args, go_on, **given):
        fakes.signals["term"]()
        return played(*args, go_on=go_on, **given)

    monkeypatch.setattr(scoring, "play", stopped)
    words = ["train", "--preset", "tiny", "--logdir", "D", "--final-episodes", "4"]
    with pytest.raises(SystemExit):
        main(fakes.app, words)
    assert not Path("D/eval").exists()
    monkeypatch.setattr(scoring, "play", played)
    main(fakes.app, words)
    (path,) = Path("D/eval").iterdir()
    assert json.loads(path.read_text())["episodes"] == 4


def test_evaluations_have_environments_of_their_own_where_an_app_says_so(fakes, quiet, capsys):
    """What they have otherwise than training's stands beside the score, and the result is still the run's own."""

    class Own(fakes.envs):
        protocol: ClassVar[dict[str, Any]] = {"name": "fake, own seeds", "sizes": (1, 2)}

    app = dataclasses.replace(fakes.app, fresh=lambda config, n: Own(n))
    main(app, ["train", "--preset", "tiny", "--logdir", "D", "--final-episodes", "2"])
    capsys.readouterr()
    main(app, ["eval", "D", "--episodes", "2"])
    found = json.loads(capsys.readouterr().out)
    assert found["protocol"] == {"name": "fake", "sizes": [1, 2]}
    assert found["evaluated_with"] == {"name": "fake, own seeds"}
    assert results.newest_eval(read(Path("D"))) == found
    assert json.loads(Path("D/protocol.json").read_text())["name"] == "fake"


def test_an_evaluation_of_something_else_leaves_the_runs_own(fakes, run, quiet, monkeypatch, capsys):
    monkeypatch.setattr(scoring, "evaluate", lambda *args, episodes, **_: [Episode(1.0, 1)] * episodes)
    main(fakes.app, ["eval", "D", "--episodes", "4"])
    (own,) = (run / "eval").iterdir()
    text = own.read_bytes()
    assert own.name == f"{checkpoint.load(checkpoint.latest(run)).step}.json"
    assert json.loads(text)["changed"] == {}
    for option in (
        "--mode",
        "--seed=7",
        "--seed=8",
        "--lr=7",
        "--task=blind",
        "--task=blind --mode",
        "--memory=training",
    ):
        main(dataclasses.replace(fakes.app, acting=("lr",)), ["eval", "D", *option.split()])
    assert own.read_bytes() == text and len(list((run / "eval").iterdir())) == 8
    told = [json.loads(path.read_text()) for path in (run / "eval").iterdir()]
    assert {"seed": 7} in [one["changed"] for one in told]
    assert {"memory": "training"} in [one["changed"] for one in told]
    assert [one["task"] for one in told if "task" in one["changed"]] == ["blind", "blind"]
    assert results.newest_eval(read(run)) == json.loads(text)
    main(fakes.app, ["eval", "D", "--threads", "1"])  # where it runs is no difference
    assert len(list((run / "eval").iterdir())) == 8 and json.loads(own.read_text())["episodes"] == 10


def test_a_number_that_no_evaluation_reads_is_refused(fakes, run, capsys):
    with pytest.raises(SystemExit):
        main(fakes.app, ["eval", "D", "--steps", "7"])
    assert "--steps is for training, and `eval` does not read it: leave it out" in capsys.readouterr().err


def test_a_result_that_cannot_be_kept_is_printed_all_the_same(fakes, run, capsys, monkeypatch):
    def closed(path: Path, value: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(commands, "write_json", closed)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(fakes.app, ["eval", "D", "--episodes", "3"])
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and len(json.loads(out)["scores"]) == 3
    assert "Read-only file system" in err and "name a copy of the run that is" in err and "Traceback" not in err


def test_eval_plays_what_a_run_that_trains_has_saved_meanwhile(fakes, run, capsys, monkeypatch):
    first, real = checkpoint.latest(run), checkpoint.load
    again = []

    def replaced(path: Path, **options: object) -> checkpoint.Checkpoint:
        if path == first:
            saved = real(path, app="fakeapp")
            checkpoint.save(run, 1000, weights=saved.weights, state={}, meta=saved.meta, keep=1)
            again.append(path)
        return real(path, **options)

    monkeypatch.setattr(checkpoint, "load", replaced)
    capsys.readouterr()
    main(fakes.app, ["eval", "D", "--episodes", "3"])
    assert json.loads(capsys.readouterr().out)["step"] == 1000 and again == [first] and not first.exists()


def test_eval_says_that_the_only_checkpoint_is_damaged(fakes, run, capsys):
    path = checkpoint.latest(run)
    for other in run.glob("checkpoint/[0-9]*"):
        (other / "state.pt").unlink()
    with pytest.raises(SystemExit):
        main(fakes.app, ["eval", "D"])
    assert f"{path} is damaged, and there is no other checkpoint" in capsys.readouterr().err


# ---- dream


def test_dream_measures_by_horizon_and_shows(fakes, run, capsys):
    capsys.readouterr()
    main(fakes.app, ["dream", "D", "--observed", "2", "--imagined", "4", "--rows", "3"])
    out = capsys.readouterr().out
    (path,) = (run / "dream").iterdir()
    result = json.loads(path.read_text())
    assert result["error"]["model"][0] == pytest.approx(0.01, abs=1e-4)
    assert len(result["error"]["copy"]) == 4
    assert result["rows_at_horizon"] == sorted(result["rows_at_horizon"], reverse=True)
    assert "steps ahead" in out and all(Path(line).exists() for line in out.split() if line.startswith("D/"))


def test_dream_measures_every_observation(fakes, run, capsys):
    capsys.readouterr()
    main(fakes.app, ["dream", "D", "--observed", "2", "--imagined", "4"])
    out = capsys.readouterr().out
    (path,) = (run / "dream").iterdir()
    result = json.loads(path.read_text())
    assert list(result["errors"]) == ["image", "vector"] and result["error"] == result["errors"]["image"]
    assert result["errors"]["vector"]["model"][0] == pytest.approx(0.01, abs=1e-4) and result["discrete"] == []
    assert [line for line in out.splitlines() if "held-out" in line] == [
        "mean squared error of 'image', held-out steps, at step 64",
        "mean squared error of 'vector', held-out steps, at step 64",
    ]


def test_a_dream_of_something_else_leaves_the_runs_own(fakes, run, capsys):
    words = ["--observed", "2", "--imagined", "4"]
    main(fakes.app, ["dream", "D", *words])
    kept = {path: path.read_bytes() for name in ("dream", "video") for path in (run / name).iterdir()}
    main(fakes.app, ["dream", "D", *words, "--seed", "9"])
    main(fakes.app, ["dream", "D", *words, "--task", "blind"])
    assert {path: path.read_bytes() for path in kept} == kept and len(list((run / "dream").iterdir())) == 3
    told = [json.loads(path.read_text())["changed"] for path in (run / "dream").iterdir()]
    assert {} in told and {"seed": 9} in told and {"task": "blind"} in told
    (run / "dream" / "sensitivity-64.json").write_text('{"key": "image"}')  # of --sensitivity, and no damaged result
    shown = Group("fake", (read(run),))
    assert results.newest_dream(shown.runs[0])["changed"] == {} and damaged([shown]) == []
    assert page([shown], []).count("<video") == 1


def test_a_number_that_no_dream_reads_is_refused(fakes, run, capsys):
    with pytest.raises(SystemExit):
        main(fakes.app, ["dream", "D", "--batch", "7"])
    assert "--batch is for training, and `dream` does not read it: leave it out" in capsys.readouterr().err


def test_dream_prefers_rows_within_one_episode(fakes, run):
    """Episodes last 3 to 7 actions: of 64 rows enough have 2 + 2 steps without a reset after the context."""
    main(fakes.app, ["dream", "D", "--observed", "2", "--imagined", "2"])
    (path,) = (run / "dream").iterdir()
    result = json.loads(path.read_text())
    assert result["rows_at_horizon"] == [16, 16]


def test_a_horizon_that_no_row_reaches_has_no_error(fakes, run):
    main(fakes.app, ["dream", "D", "--observed", "2", "--imagined", "30"])
    (path,) = (run / "dream").iterdir()
    assert json.loads(path.read_text())["error"]["model"][-1] is None


def test_film_and_strip_mark_where_the_context_ends():
    true = np.zeros((2, 6, 16, 16, 1), np.float32)
    valid = np.ones((2, 6), bool)
    valid[1, 4:] = False
    film = filmstrip.film(true, true + 0.5, valid, context=3)
    corner = [tuple(frame[2, -2]) for frame in film]
    assert corner == [filmstrip.OBSERVED] * 3 + [filmstrip.IMAGINED] * 3
    strip = filmstrip.strip(true, true + 0.5, valid, context=3)
    black = (strip[-1] == filmstrip.INK).all(-1)
    assert black.sum() == filmstrip.GAP


def test_panels_are_true_predicted_error():
    true, predicted = np.zeros((1, 2, 4, 4, 3)), np.full((1, 2, 4, 4, 3), 0.4)
    predicted[..., 1] = 0.6
    valid = np.array([[True, False]])
    panels = filmstrip.panels(true, predicted, valid)
    assert panels[:, 0, 0, 0, 0].tolist() == [[0, 0, 0], [102, 153, 102], [153, 153, 153]]
    assert panels[:, 0, 1, 0, 0, 0].tolist() == [0, filmstrip.GONE, filmstrip.GONE]


# ---- load


def test_a_loaded_policy_acts_as_in_the_environments(fakes, run):
    """Observation by observation, through episode ends, it takes the actions that the batched agent takes."""
    app = dataclasses.replace(fakes.app, decode_action=lambda space, vector: (space, int(vector.argmax())))
    loaded, batched = load(app, run), load(app, run).agent
    envs = fakes.envs(1)
    step, carry, held = envs.reset(5), batched.initial(1), None
    for t in range(30):
        carry, action, _ = batched.act(carry, step, mode=True)
        given = {"image": step["image"][0]} if t % 2 else step["image"][0]
        native, held = loaded.policy(given, held, first=bool(step["first"][0]), mode=True)
        assert native == ("three doors", int(action[0].argmax()))
        step = envs.step(action)


def test_a_carry_keeps_the_previous_action_and_first_drops_it(fakes, run, monkeypatch):
    seen = []
    loaded = load(fakes.app, run)
    act = loaded.agent.act

    def spy(carry, step, mode=False):
        seen.append((step["action"][0].tolist(), bool(step["first"][0]), carry["sum"][0, 0].item()))
        return act(carry, step, mode)

    monkeypatch.setattr(loaded.agent, "act", spy)
    image = np.full((16, 16, 3), 9, np.uint8)
    action, carry = loaded.policy(image)
    loaded.policy(image, carry)
    loaded.policy(image, carry, first=True)
    loaded.policy(image)
    assert seen[0] == ([0.0, 0.0, 0.0], True, 0.0)
    assert seen[1] == (action.tolist(), False, 9.0)
    assert seen[2] == ([0.0, 0.0, 0.0], True, 9.0)  # an episode begins, the memory stays
    assert seen[3] == seen[0]


def test_an_observation_that_does_not_fit_is_told(fakes, run):
    loaded = load(fakes.app, run)
    with pytest.raises(UserError, match="observes"):
        loaded.policy({"camera": np.zeros((16, 16, 3), np.uint8)})
    with pytest.raises(UserError, match="has shape"):
        loaded.policy(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UserError, match="'image' is float32, not uint8"):  # [0, 1] would turn black
        loaded.policy(np.ones((16, 16, 3), np.float32))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([0.0, float("nan")], "holds nan"),
        ([-np.inf, 0.0], "holds -inf"),
        (np.array([1e300, 0.0]), "holds 1e+300"),  # beyond float32
        ([0.0, None], "is a list, not an array of float32"),
        (["left", "right"], "is a list, not an array of float32"),
        ([[0.0], [0.0, 1.0]], "is a list, not an array of float32"),
        (None, "is a NoneType, not an array"),
    ],
)
def test_an_observation_that_is_no_number_is_told_and_nothing_acts(fakes, quiet, monkeypatch, value, words):
    main(fakes.app, ["train", "--preset", "tiny", "--task", "blind", "--steps", "4", "--logdir", "D"])
    loaded = load(fakes.app, "D")
    monkeypatch.setattr(loaded.agent, "act", None)
    with pytest.raises(UserError, match=re.escape(f"observation 'vector' {words}")):
        loaded.policy(value)


@pytest.mark.parametrize("value", [300, -1])
def test_a_number_beyond_its_type_does_not_wrap_around(fakes, run, value):
    with pytest.raises(UserError, match=f"'image' holds {value}, which is not between 0 and 255"):
        load(fakes.app, run).policy(np.full((16, 16, 3), value))


def test_loading_gives_the_last_weights(fakes, run):
    loaded = load(fakes.app, str(run))
    saved = checkpoint.load(checkpoint.latest(run))
    assert torch.equal(loaded.agent.state_dict()["weight"], saved.weights["weight"])
    assert loaded.step == saved.step
    with pytest.raises(UserError, match="no run in"):
        load(fakes.app, "nowhere")


def test_nested_observations_are_named_as_the_adapters_name_them(fakes, run):
    loaded = load(fakes.app, run)
    box = SimpleNamespace(dtype=np.dtype(np.float32), shape=())
    loaded = dataclasses.replace(loaded, observation_space=SimpleNamespace(spaces={"a/b": box, "a/0": box}))
    entries = loaded.entries({"a": {"b": 1.0, "0": 2.0}})
    assert {key: float(value) for key, value in entries.items()} == {"a/b": 1.0, "a/0": 2.0}


def test_one_process_a_folder(fakes, dreaming, quiet, capsys):
    """A second one would cut the first one's logs and replay."""
    with locked(Path("D")):
        with pytest.raises(SystemExit):
            main(fakes.app, ["train", "--preset", "tiny", "--steps", "40", "--logdir", "D"])
        assert [path.name for path in Path("D").iterdir()] == [".lock"]
    told = capsys.readouterr().err
    assert "is training in D" in told and str(os.getpid()) in told and "Traceback" not in told
    main(fakes.app, ["train", "--preset", "tiny", "--steps", "40", "--logdir", "D"])
    main(fakes.app, ["train", "--preset", "tiny", "--steps", "60", "--logdir", "D"])
    assert checkpoint.load(checkpoint.latest("D")).step >= 60


def test_a_run_goes_on_on_another_kind_of_device(fakes, run, capsys):
    """A generator of CUDA saves 16 bytes, one of a CPU five thousand."""
    saved = checkpoint.load(checkpoint.latest(run))
    saved.state["agent"]["source"] = {"state": torch.arange(16, dtype=torch.uint8)}
    checkpoint.save(run, saved.step, weights=dict(saved.weights), state=saved.state, meta=saved.meta)
    capsys.readouterr()
    main(fakes.app, ["train", "--steps", "120", "--logdir", str(run)])
    assert "another kind of device: random numbers go on from a new seed" in capsys.readouterr().err
    assert checkpoint.load(checkpoint.latest(run)).step >= 120


def test_a_stop_during_an_evaluation_saves_and_does_not_wait_for_it(fakes, dreaming, quiet, monkeypatch, capsys):
    """The episodes of this evaluation would take for ever."""

    def endless(agent, envs, *, go_on, **rest):
        os.kill(os.getpid(), signal.SIGTERM)
        assert not go_on()
        return []

    monkeypatch.setattr(scoring, "evaluate", endless)
    with pytest.raises(SystemExit) as stop:
        main(fakes.app, ["train", "--preset", "tiny", "--steps", "200", "--eval-every", "40", "--logdir", "D"])
    assert stop.value.code == 128 + signal.SIGTERM
    assert 40 <= checkpoint.load(checkpoint.latest("D")).step < 80
    assert "eval/score" not in (Path("D") / "metrics.jsonl").read_text()


def test_an_episode_without_end_ends_no_run(fakes, dreaming, quiet, monkeypatch, capsys):
    monkeypatch.setattr(scoring, "evaluate", lambda *given, **named: [])
    main(fakes.app, ["train", "--preset", "tiny", "--steps", "60", "--eval-every", "40", "--logdir", "D"])
    assert "no evaluation at step 40: an episode has not ended" in capsys.readouterr().err


def test_logs_without_a_checkpoint_are_kept(fakes, run, capsys):
    """A checkpoint that was deleted, or somebody else's logs: a run that begins anew would drop the lines."""
    before = (run / "scores.jsonl").read_bytes()
    shutil.rmtree(run / "checkpoint")
    for k in (1, 2):
        capsys.readouterr()
        main(fakes.app, ["train", "--steps", "60", "--logdir", str(run)])
        told = capsys.readouterr().err
        assert f"begins anew; its logs are kept as metrics.jsonl.before-{k} and scores.jsonl.before-{k}" in told
        shutil.rmtree(run / "checkpoint")
    assert (run / "scores.jsonl.before-1").read_bytes() == before == (run / "scores.jsonl").read_bytes()


@pytest.mark.parametrize(("starts", "told"), [(4, False), (1000, True)])
def test_a_run_that_ends_before_it_learns_says_so(fakes, dreaming, quiet, capsys, starts, told):
    options = ["--steps", "60", "--learning-starts", str(starts), "--logdir", "D"]
    main(fakes.app, ["train", "--preset", "tiny", *options])
    assert ("this run ends before it learns: the first update needs about 4,000" in capsys.readouterr().err) == told


def test_an_evaluation_without_end_is_told(fakes, run, capsys, monkeypatch):
    monkeypatch.setattr(scoring, "evaluate", lambda *given, **named: [Episode(0.0, 1)])
    with pytest.raises(SystemExit):
        main(fakes.app, ["eval", "D"])
    assert "an episode has not ended after 200,000 steps" in capsys.readouterr().err
    assert not (run / "eval").exists()
