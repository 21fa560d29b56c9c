"""tools/pixels.py: the four rivals of a world model in pixels against models made by hand; a run that is stopped goes on."""

from __future__ import annotations

import itertools
import json
import pathlib
import sys
from typing import Any

import numpy as np
import pytest
import torch
from env_adapters import TeamEnv, make_vec
from gymnasium import spaces
from torch import Tensor
from wm_core.types import Batch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))

import pixels
import recording
import rivals

AGENTS, SIDE, CONTEXT, AHEAD = 3, 8, 2, 4
COLOURS = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200]], np.uint8)


def views(places: Any) -> Any:
    """Places (..., N) of agents on a ring of 8 -> what each sees (..., N, 8, 8, 3): itself above, its left neighbour below,
    unless that hides at the last two places."""
    places = np.asarray(places)
    image = np.zeros((*places.shape, SIDE, SIDE, 3), np.uint8)
    for agent, at in itertools.product(range(AGENTS), range(SIDE)):
        image[..., agent, :4, at, :][places[..., agent] == at] = COLOURS[agent]
        if at < SIDE - 2:
            image[..., agent, 4:, at, :][places[..., agent - 1] == at] = COLOURS[agent - 1]
    return image


class Ring(TeamEnv):
    """Agents that walk on a ring of 8 by 0, 1 or 2 places a step. They begin anywhere."""

    agents, noop, cheap, sizes_kept = AGENTS, 0, True, ("image",)
    observation_space = spaces.Dict(image=spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8))
    action_space = spaces.Discrete(3)
    limit = 1_000

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.places, self.time = self.np_random.integers(SIDE, size=AGENTS), 0
        return {"image": views(self.places)}, {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.places, self.time = (self.places + np.array(action)) % SIDE, self.time + 1
        return {"image": views(self.places)}, np.zeros(AGENTS), False, self.time == self.limit, {}


class Short(Ring):
    limit = 7


def seen(image: Any) -> Any:
    """The places (..., N) that views (..., N, 8, 8, 3) show."""
    return (np.asarray(image)[..., 0, :, :] > 0).any(-1).argmax(-1)


def told(batch: Batch, dream: int, knows: Any = None) -> Tensor:
    """Views by the rule of the ring, from the last one that was observed; knows (N, N) bool: whose actions each agent knows."""
    places, action = seen(batch.steps["image"]), batch.steps["action"].numpy().argmax(-1)
    knows = np.ones((AGENTS, AGENTS), bool) if knows is None else knows
    found = views(places)
    for agent, t in itertools.product(range(AGENTS), range(CONTEXT, CONTEXT + AHEAD)):
        walked = (action[:, CONTEXT : t + 1].sum(1) * knows[agent] + places[:, CONTEXT - 1]) % SIDE
        found[:, t, agent] = views(walked)[:, agent]
    return torch.from_numpy(found).float() / 255


def played(folder: pathlib.Path, env: Any = Ring, streams: int = 4, records: int = 20) -> recording.Recording:
    envs = make_vec(env, streams, workers=0)
    return recording.record(folder, records, recording.played(envs, 0, records))


def compared(held_out: recording.Recording, predict: Any, starts: tuple[int, ...] = (0, 7), dreams: int = 1) -> Any:
    shows = np.ones((held_out.streams, held_out.records, AGENTS), bool)
    shows[1:] = False
    mean = rivals.mean_views(held_out, 1)
    found = rivals.compared(predict, held_out, mean, shows, context=CONTEXT, ahead=AHEAD, starts=starts, dreams=dreams)
    return found if dreams > 1 else found[0]


def test_a_model_that_knows_the_truth_is_below_all_its_rivals(tmp_path: pathlib.Path) -> None:
    errors = compared(played(tmp_path / "some", streams=12), told)
    assert (errors.of["model"] == 0).all()
    for rival in rivals.RIVALS:
        gain, _ = errors.margin(rival)
        torch.testing.assert_close(gain, errors.mean(rival))
        assert gain.shape == (AGENTS, AHEAD) and (gain > 0).all(), rival


def test_a_model_is_not_above_itself_where_it_knows_nothing_of_what_is_borrowed(tmp_path: pathlib.Path) -> None:
    held_out = played(tmp_path / "some", streams=12)
    deaf = compared(held_out, lambda *asked: told(*asked, np.zeros((AGENTS, AGENTS), bool)))
    for rival in ("own", "others", "copy"):  # a model that knows no action repeats the last view
        assert torch.equal(deaf.of[rival], deaf.of["model"]) and deaf.margin(rival)[1].max() == 0
    alone = compared(held_out, lambda *asked: told(*asked, np.eye(AGENTS, dtype=bool)))
    assert torch.equal(alone.of["others"], alone.of["model"]) and (alone.margin("own")[0] > 0).all()
    blind = compared(held_out, lambda *asked: told(*asked, ~np.eye(AGENTS, dtype=bool)))
    assert torch.equal(blind.of["own"], blind.of["model"]) and (blind.margin("others")[0] > 0).all()


def test_every_error_is_that_of_plain_loops(tmp_path: pathlib.Path) -> None:
    held_out = played(tmp_path / "some")
    images, actions = held_out.arrays["image"], held_out.arrays["action"].argmax(-1)
    errors = compared(held_out, told)
    mean = images.astype(float).mean((0, 1)) / 255
    for (s, start), episode, agent, ahead in itertools.product(
        enumerate((0, 7)), range(4), range(AGENTS), range(1, AHEAD + 1)
    ):
        last = start + CONTEXT - 1
        true, before = images[episode, last + ahead, agent] / 255, images[episode, last, agent] / 255
        expected = {"model": 0.0, "copy": ((before - true) ** 2).mean(), "mean": ((mean[agent] - true) ** 2).mean()}
        for name in ("own", "others"):
            places = seen(images[episode, last])
            for t in range(last + 1, last + ahead + 1):
                for other in range(AGENTS):
                    borrows = (other == agent) == (name == "own")
                    places[other] += actions[(episode - 1) % 4 if borrows else episode, t, other]
            expected[name] = ((views(places % SIDE)[agent] / 255 - true) ** 2).mean()
        for name, value in expected.items():
            assert errors.of[name][s, episode, agent, ahead - 1].item() == pytest.approx(value, abs=1e-6), name
    shown = errors.of["copy"][:, 0].mean(0)  # `shows` has the first episode alone
    torch.testing.assert_close(errors.mean("copy", shown=True), shown)


def test_dreams_err_by_the_mean_of_their_errors_and_their_mean_by_less(tmp_path: pathlib.Path) -> None:
    held_out, off = played(tmp_path / "some"), (0.3, -0.1, 0.1)

    def predict(batch: Batch, dream: int) -> Tensor:
        return told(batch, dream) + off[dream]

    one, mean = compared(held_out, predict, dreams=3)
    assert one.of["model"].numpy() == pytest.approx(np.full(one.of["model"].shape, (0.09 + 0.01 + 0.01) / 3), abs=1e-6)
    assert mean.of["model"].numpy() == pytest.approx(np.full(mean.of["model"].shape, 0.1**2), abs=1e-6)
    assert torch.equal(one.of["copy"], mean.of["copy"]) and torch.equal(
        one.of["copy"], compared(held_out, told).of["copy"]
    )
    for name in ("own", "others"):  # what is off is so of the borrowed dreams, too
        assert (one.of[name] >= mean.of[name]).all() and one.of[name].shape == mean.of[name].shape


def test_standard_errors_are_those_of_the_mean_of_episodes() -> None:
    zeros, values = torch.zeros(3, 5, 2, 4), torch.rand(3, 5, 2, 4, generator=torch.Generator().manual_seed(0))
    errors = rivals.Errors({"model": zeros, "copy": values}, torch.ones(3, 5, 2, 4, dtype=torch.bool))
    for shown in (False, True):
        gain, spread = errors.margin("copy", shown)
        torch.testing.assert_close(gain, values.mean((0, 1)))
        torch.testing.assert_close(spread, values.mean(0).std(0) / 5**0.5)


def test_rows_that_span_two_episodes_are_refused(tmp_path: pathlib.Path) -> None:
    held_out = played(tmp_path / "short", Short)
    compared(held_out, told, (0, 8))  # records 0 to 7 and 8 to 15 are episodes
    with pytest.raises(ValueError, match="from record 3 on span two episodes"):
        compared(held_out, told, (3,))


def test_views_that_show_another_are_found_by_its_colours() -> None:
    places = np.random.default_rng(0).integers(SIDE, size=(50, AGENTS))
    images = views(places)
    images[:, 2, 4:] = 0  # agent 2 sees nobody
    colours = rivals.own_colours(images)
    assert [[hex(one) for one in own] for own in colours] == [["0xc80000"], ["0xc800"], ["0xc8"]]
    expected = np.stack([places[:, 2] < SIDE - 2, places[:, 0] < SIDE - 2, np.zeros(50, bool)], 1)
    assert (rivals.shows_another(images, colours) == expected).all() and expected.any(0).tolist() == [True, True, False]


@pytest.fixture
def tool(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`pixels.py`'s command line on the ring, with small numbers, into a folder of its own."""
    for name, value in {
        "RUNS": tmp_path / "runs", "ROWS": tmp_path / "pixels.jsonl", "PAGE": tmp_path / "pixels.md", "STREAMS": 3,
        "RECORDED": 60, "HELD_OUT": 40, "SAVED_EVERY": 2, "LOGGED_EVERY": 2, "CONTEXT": CONTEXT, "AHEAD": 15, "STARTS": 2,
    }.items():  # fmt: skip
        monkeypatch.setattr(pixels, name, value)
    sizes = "batch=2 length=6 deter=8 hidden=8 width=8 feedforward=8 layers=1 head_units=8 depth=2 encoder_units=8"

    def call(*words: str) -> None:
        last = words.index("--set") if "--set" in words else len(words)
        monkeypatch.setattr(sys, "argv", ["pixels.py", *words[:last], "--set", *sizes.split(), *words[last + 1 :]])
        pixels.main()

    return call


def test_a_run_that_is_stopped_goes_on_and_records_once(
    tool: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = f"{__name__}:Ring"
    tool("train", task, "--updates", "5", "--name", "whole")
    tool("train", task, "--updates", "2", "--name", "parts")
    monkeypatch.setattr(recording, "record", lambda *_: pytest.fail("recorded twice"))
    tool("train", task, "--updates", "5", "--name", "parts")
    whole, parts = (pixels.checkpoint.load(path) for path in sorted((tmp_path / "runs").glob("*/*/checkpoint/5")))
    assert whole.path != parts.path and whole.step == parts.step == 5
    assert all(torch.equal(value, parts.weights[name]) for name, value in whole.weights.items())
    assert parts.meta["cpu_seconds"] > 0 and [first for first, _ in parts.meta["stages"]] == [0]
    tool("train", task, "--updates", "6", "--name", "parts", "--set", "lr=1e-4")
    (slower,) = (tmp_path / "runs").glob("*/parts/checkpoint/6")
    stages = pixels.checkpoint.load(slower).meta["stages"]
    assert [(first, numbers["lr"]) for first, numbers in stages] == [(0, pixels.NUMBERS["lr"]), (5, 1e-4)]


def test_a_measure_is_a_row_a_page_and_a_film(tool: Any, tmp_path: pathlib.Path) -> None:
    task = f"{__name__}:Ring"
    tool("train", task, "--updates", "1")
    tool("train", task, "--updates", "3", "--set", "length=7")
    (tmp_path / "pixels.md").write_text(f"What it says.\n\n{pixels.BELOW}\nold\n")
    tool("measure", task)
    row, mean = map(json.loads, (tmp_path / "pixels.jsonl").read_text().splitlines())
    assert [(each["dreams"], each["repeats"]) for each in (row, mean)] == [(1, pixels.DREAMS), (pixels.DREAMS, 1)]
    for same in ("copy", "mean"):  # a rival that dreams nothing
        assert row["whole"]["errors"][same] == mean["whole"]["errors"][same]
    one, several = (np.array(each["whole"]["errors"]["model"]) for each in (row, mean))
    assert several.mean() < one.mean()  # what is drawn anew in every dream averages out
    assert (
        row["updates"] == 3
        and row["frames"] == (2 * 6 + 2 * 2 * 7) * AGENTS
        and row["episodes"] == 3
        and row["rows"] == 6
    )
    assert np.shape(row["whole"]["margins"]["others"]) == (AGENTS, 15) and row["stages"][0][1]["deter"] == 8
    assert 0.5 < row["share_shown"] < 1 and row["whole"] != row["shown"]
    page = (tmp_path / "pixels.md").read_text()
    assert page.startswith("What it says.") and "old" not in page and "| others' actions borrowed |" in page
    assert page.count("errors are means over 8 dreams.") == 1
    assert page.index("## One dream") < page.index("## The mean of 8 dreams")
    assert (tmp_path / "pixels-openloop.mp4").stat().st_size and (tmp_path / "pixels-openloop.png").stat().st_size


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["measure", f"{__name__}:Ring"], "holds no model: `pixels.py train` makes one"),
        (["page"], "holds no row: `pixels.py measure` writes one"),
        (["train", f"{__name__}:Ring", "--set", "lr"], "not 'lr'"),
        (["train", f"{__name__}:Ring", "--set", "learning=1"], "learning"),
    ],
)
def test_a_mistake_is_one_sentence(
    words: list[str], told: str, tool: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["pixels.py", *words])
    with pytest.raises(SystemExit, match="1"):
        pixels.main()
    assert told in (said := capsys.readouterr().err) and "Traceback" not in said
