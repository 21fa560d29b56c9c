"""play: what the frames tell is what the model predicts, and in a window a held key wins over the policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import islice
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from wm_core import draws
from wm_run import canvas as canvas_module
from wm_run import stage
from wm_run import window as window_module
from wm_run.canvas import Canvas
from wm_run.cli import main
from wm_run.filmstrip import LINE
from wm_run.observer import Observer, Predictions, key_shown
from wm_run.play import film, watch
from wm_run.rollout import rollout
from wm_run.stage import Moment, in_dream, in_environment
from wm_run.window import Keyboard, key_hint

DISCOUNT = 0.9


def moment(**changes: Any) -> Moment:
    predicted = Predictions(
        0.5,
        2.0,
        0.75,
        np.zeros((16, 16, 3), np.float32),
        np.array([0, 1, 0], np.float32),
        np.eye(3, dtype=np.float32)[[1]],
    )
    values = {"t": 3, "imagined": False, "seen": np.zeros((16, 16, 3), np.uint8), "predicted": predicted, "reward": 1.0}
    values |= {"score": 4.0, "action": predicted.action, "who": "policy", "over": False}
    return Moment(**(values | changes))


# ---- what is predicted


def test_playing_is_what_a_rollout_does(fakes, agent):
    """The same seed, the same actions and rewards, episode ends included."""
    straight = [r for r, _ in zip(rollout(agent, fakes.envs(1), seed=3), range(40), strict=False)]
    moments = list(islice(in_environment(Observer(agent, "image", seed=3), fakes.envs(1), seed=3), 40))
    assert sum(one.over for one in moments) > 3
    for record, one, after in zip(straight, moments, straight[1:], strict=False):
        assert one.reward == record["reward"][0] and one.over == record["last"][0]
        assert (one.seen == record["image"][0]).all()
        assert after["first"][0] or (one.action == after["action"][0]).all()


def test_score_and_steps_begin_again_with_an_episode(fakes, agent):
    score, t = 0.0, 0
    for one in islice(in_environment(Observer(agent, "image", seed=3), fakes.envs(1), seed=3), 40):
        score, t = (0.0, 0) if one.t == 0 else (score + one.reward, t + 1)
        assert (one.score, one.t) == (pytest.approx(score), t)


@torch.no_grad()
def test_the_predictions_are_those_of_the_heads(fakes, agent):
    step = fakes.envs(1).reset(0)
    trace, predicted = Observer(agent, "image", seed=5, mode=True).observe(agent.initial(1), step)
    with draws.drawing(draws.Generator(5)):
        steps = {name: torch.as_tensor(value)[:, None] for name, value in step.items()}
        latent = agent.world.observe(agent.initial(1), steps).latent
    assert torch.equal(trace.latent.stoch, latent.stoch)
    assert predicted.reward == pytest.approx(agent.world.heads["reward"](latent).mode().item())
    assert predicted.value == pytest.approx(agent.behaviour.critic(latent).mode().item())
    assert predicted.cont == pytest.approx(min(1.0, agent.world.heads["cont"](latent).mode().item() / DISCOUNT))
    assert np.allclose(predicted.shown, agent.world.decoder(latent)["image"].mode()[0, 0])
    assert (predicted.action == agent.behaviour.policy(latent).mode()[0, 0].numpy()).all()


@torch.no_grad()
def test_a_dream_sees_nothing_and_follows_its_actions(fakes, agent, monkeypatch):
    """After the start no environment is asked; the dreamed latents are imagine's under the chosen actions."""
    monkeypatch.setattr(stage, "OVER", -1.0)  # never ends
    envs, given = fakes.envs(1), []
    imagine = agent.world.dynamics.imagine

    def spy(carry, action):
        assert not given or carry is given[-1][1]  # each step goes on from the one before
        after, latent = imagine(carry, action)
        given.append((action[0].numpy(), after))
        return after, latent

    monkeypatch.setattr(agent.world.dynamics, "imagine", spy)
    hands = Keyboard((3,), 0)
    hands.held = ["2"]
    moments = list(islice(in_dream(Observer(agent, "image", seed=3), envs, seed=3, observed=4, choose=hands), 12))
    assert [one.imagined for one in moments] == [False] * 4 + [True] * 8
    assert envs.calls == 4
    assert all(one.seen is None and one.reward is None and one.who == "you" for one in moments[4:])
    assert [a.argmax() for a, _ in given[1:]] == [2] * 7  # the first is the policy's, chosen at the last real step
    assert (given[0][0] == moments[3].action).all()
    dreamed = [one.predicted.reward for one in moments[4:]]
    assert [one.score for one in moments[4:]] == pytest.approx(np.cumsum(dreamed))


def test_a_dream_ends_where_the_model_expects_the_end_and_another_begins(fakes, agent, monkeypatch):
    monkeypatch.setattr(stage, "OVER", 2.0)  # at once
    moments = list(islice(in_dream(Observer(agent, "image", seed=3), fakes.envs(1), seed=3, observed=2), 9))
    assert [one.over for one in moments] == [False, False, True] * 3
    assert [one.t for one in moments] == [0, 1, 2] * 3


def test_the_key_shown_is_an_image_else_a_vector():
    from types import SimpleNamespace

    def envs(**kinds: tuple[Any, tuple[int, ...]]) -> Any:
        spaces = {name: SimpleNamespace(dtype=np.dtype(kind), shape=shape) for name, (kind, shape) in kinds.items()}
        return SimpleNamespace(observation_space=SimpleNamespace(spaces=spaces))

    assert key_shown(envs(a=(np.float32, (3,)), b=(np.uint8, (16, 16, 3)))) == "b"
    assert key_shown(envs(d=(np.int64, ()), c=(np.float32, (3, 2)))) == "c"
    assert key_shown(envs(d=(np.int64, ()))) is None


# ---- what is drawn


@pytest.mark.parametrize("seen", [np.zeros((16, 16, 3), np.uint8), np.array([1.0, -2.0, np.nan]), np.zeros(500), None])
def test_every_frame_of_a_film_has_one_size(seen):
    shown = np.zeros((16, 16, 3), np.float32) if seen is not None and seen.ndim == 3 else seen
    predicted = dataclasses.replace(moment().predicted, shown=shown)
    canvas = Canvas()
    shapes = {
        canvas.draw(moment(seen=seen, predicted=predicted)).shape,
        canvas.draw(moment(seen=None, predicted=predicted, imagined=True, reward=None), key_hint((18,), 2)).shape,
    }
    assert len(shapes) == 1


def test_the_colour_above_says_whether_it_is_real():
    canvas = Canvas()
    for imagined, colour in ((False, canvas_module.OBSERVED), (True, canvas_module.IMAGINED)):
        assert tuple(canvas.draw(moment(imagined=imagined))[2, -2]) == colour


def test_the_caption_names_reward_value_and_continue():
    text = " | ".join(canvas_module.caption(moment(over=True)))
    for words in ("reward predicted +0.500  (arrived +1.000)", "value 2.000", "continue 0.750  END", "score 4.00"):
        assert words in text
    assert "arrived" not in " ".join(canvas_module.caption(moment(imagined=True, reward=None)))
    assert "action 1  by policy" in text


def test_the_bars_of_a_vector_have_its_signs_and_lengths():
    page = canvas_module.panel(np.array([1.0, -0.5]), 1.0)
    green = (page == canvas_module.OBSERVED).all(-1)
    half, middle = canvas_module.SIDE // 2, canvas_module.SIDE // 2
    assert green[:half, middle + 1 :].sum() == pytest.approx(2 * green[half:, :middle].sum(), rel=0.05)
    assert not green[:half, : middle - 1].any() and not green[half:, middle + 2 :].any()


# ---- who chooses

POLICY = np.array([1, 0, 0, 0.3, 0.4, 0.5], np.float32)


@pytest.mark.parametrize(
    "held, expected",
    [
        (["2"], [0, 0, 1, 0.3, 0.4, 0.5]),
        (["left"], [1, 0, 0, -1, 0.4, 0.5]),
        (["1", "up", "right"], [0, 1, 0, 1, 1, 0.5]),
        (["7"], None),  # there is no such action
        ([], None),
    ],
)
def test_held_keys_change_their_part_of_the_action(held, expected):
    found = window_module.by_keys(held, (3,), 3, POLICY)
    assert found is None if expected is None else found.tolist() == pytest.approx(expected)
    assert POLICY.tolist() == pytest.approx([1, 0, 0, 0.3, 0.4, 0.5])


def test_hands_off_takes_the_first_action():
    hands = Keyboard((3,), 1)
    assert hands(POLICY[:4]) == (pytest.approx(POLICY[:4]), "policy")
    hands.off = True
    action, who = hands(POLICY[:4])
    assert action.tolist() == [1, 0, 0, 0] and who == "nobody"


class Script:
    """A screen with a plan: (held, pressed) for each poll, then the window is closed."""

    def __init__(self, *plan: tuple[list[str], list[str]]) -> None:
        self.plan, self.pages, self.closed = list(plan), 0, False
        self.shown: list[Any] = []

    def show(self, page: Any) -> None:
        self.pages += 1
        self.shown.append(page)

    def poll(self) -> tuple[list[str], list[str]]:
        return self.plan.pop(0) if self.plan else ([], ["quit"])

    def wait(self) -> None: ...

    def close(self) -> None:
        self.closed = True


def moments_of(hands: Keyboard, ends: int = 10**9) -> Iterator[Moment]:
    for t in range(10**9):
        action, who = hands(np.array([0, 1, 0], np.float32))
        yield moment(t=t, action=action, who=who, over=t % ends == ends - 1)


def test_a_window_passes_keys_pauses_and_ends():
    hands = Keyboard((3,), 0)
    seen: list[Moment] = []

    def noted() -> Iterator[Moment]:
        for one in moments_of(hands):
            seen.append(one)
            yield one

    plan = [([], []), (["2"], ["2"]), ([], ["tab"]), ([], ["space"]), ([], []), ([], ["space"]), ([], ["tab"])]
    screen = Script(*plan)
    watch(noted(), screen, hands, 1)
    assert [one.who for one in seen] == ["policy", "policy", "you", "nobody", "nobody", "policy"]
    assert screen.pages == len(plan) + 1  # drawn while paused too
    going, paused, still = screen.shown[3:6]
    assert np.array_equal(paused, still)
    assert np.array_equal(going[:-LINE], paused[:-LINE]) and not np.array_equal(going, paused)  # the last line tells


def test_a_window_ends_after_its_episodes():
    hands = Keyboard((3,), 0)
    screen = Script(*[([], [])] * 50)
    watch(moments_of(hands, ends=5), screen, hands, 2)
    assert screen.pages == 10


def test_a_film_ends_after_its_episodes_or_frames():
    hands = Keyboard((3,), 0)
    assert len(film(moments_of(hands, ends=5), 2, 100)) == 10
    assert len(film(moments_of(hands, ends=5), 9, 7)) == 7


# ---- the command


@pytest.mark.parametrize("option, name", [("", "play-7.mp4"), ("--dream", "play_dream-7.mp4")])
def test_without_a_display_a_video_is_written(fakes, run, capsys, monkeypatch, option, name):
    monkeypatch.setattr(window_module, "has_display", lambda: False)
    main(fakes.app, ["play", "D", "--frames", "12", "--episodes", "99", *option.split()])
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == f"D/video/{name}" and "no display here" in err and "fakeapp at step 7" in out
    assert len(imageio.imread(f"D/video/{name}", plugin="pyav")) == 12
    assert {path.name for path in run.iterdir()} == {"checkpoint", "config.toml", "video"}


def test_in_a_window_the_same(fakes, run, capsys, monkeypatch):
    screens = []

    def window(title: str) -> Script:
        screens.append(Script(*[([], [])] * 100))
        return screens[-1]

    monkeypatch.setattr(window_module, "has_display", lambda: True)
    monkeypatch.setattr(window_module, "Window", window)
    main(fakes.app, ["play", "D", "--episodes", "2"])
    out = capsys.readouterr().out
    assert screens[0].closed and out.count("episode ") == 2 and not (run / "video").exists()


def test_a_window_that_cannot_open_says_what_is_missing(fakes, run, capsys, monkeypatch):
    def missing(title: str) -> None:
        raise ModuleNotFoundError("No module named 'pygame'", name="pygame")

    broken = type("error", (RuntimeError,), {"__module__": "pygame"})

    def refused(title: str) -> None:
        raise broken("video system not initialized")

    for display, window, words in [
        (False, missing, "there is no display here"),
        (True, missing, "a window needs the package pygame (uv pip install pygame)"),
        (True, refused, "the display opens no window (video system not initialized)"),
    ]:
        monkeypatch.setattr(window_module, "has_display", lambda display=display: display)
        monkeypatch.setattr(window_module, "Window", window)
        with pytest.raises(SystemExit):
            main(fakes.app, ["play", "D", "--show", "window"])
        assert words in capsys.readouterr().err
        assert window_module.open_window("auto", "t") is None
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "line, words",
    [
        ("play D --mode --sample", "exclude each other"),
        ("play D --frames 0", "must be at least 1"),
        ("play D --dream --observed 100000", "--observed and --imagined are at most 10,000 steps"),
        ("dream D --observed 0", "must be at least 1"),
        ("dream D --observed 100000", "--observed and --imagined are at most 10,000 steps"),
        ("dream D --imagined 100000", "and --rows at most 1,000"),
        ("dream D --rows 100000", "and --rows at most 1,000"),
        ("play nowhere", "there is no run in nowhere"),
        ("play D --show tv", "--show takes one of auto, window, video, not 'tv'"),
    ],
)
def test_a_mistake_is_one_sentence(fakes, run, capsys, line, words):
    with pytest.raises(SystemExit) as stop:
        main(fakes.app, line.split())
    assert stop.value.code == 2 and words in capsys.readouterr().err
