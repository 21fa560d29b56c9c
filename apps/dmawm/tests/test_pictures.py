"""Teams that see pictures: sides of 44, an open loop of every agent, and a film of all of them."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from dmawm.cli import APP
from dmawm.parts import make_world
from gymnasium import spaces
from wm_core.errors import UserError
from wm_core.images import StridedDecoder, StridedEncoder
from wm_core.observations import describe
from wm_core.patch_book import BookDecoder, BookEncoder
from wm_core.patch_latents import PatchCell, SpriteDecoder, SpriteEncoder
from wm_core.patches import PatchDecoder, PatchEncoder
from wm_run.cli import main
from wm_run.configs import overlay, resolve

PAIRED = spaces.Dict(image=spaces.Box(0, 255, (44, 44, 3), np.uint8))

PAIR = """
    import numpy as np
    from env_adapters import TeamEnv
    from gymnasium import spaces

    class Pair(TeamEnv):
        agents, noop, cheap, sizes_kept = 2, 0, True, ("image",)
        observation_space = spaces.Dict(image=spaces.Box(0, 255, (44, 44, 3), np.uint8))
        action_space = spaces.Discrete(3)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.time = 0
            return self.shown(), {}

        def step(self, actions):
            self.time += 1
            return self.shown(), np.array(actions, np.float64), False, self.time == 12, {}

        def shown(self):
            image = np.zeros((2, 44, 44, 3), np.uint8)
            image[0, :, : 3 * self.time] = 200
            image[1, :, 30:] = 90
            return {"image": image}
"""


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words of a command that name the pair."""
    (tmp_path / "pictured_pair.py").write_text(textwrap.dedent(PAIR))
    monkeypatch.syspath_prepend(tmp_path)
    return ["--task", "pictured_pair:Pair", "--steps", "80"]


def test_patches_take_the_place_of_strided_convolutions(task: list[str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    main(APP, ["train", "--preset", "tiny", *task, "--convolutions", "patches", "--patch", "11", "--logdir", str(log)])
    world = APP.load(log).agent.world
    assert isinstance(world.encoder.conv, PatchEncoder) and isinstance(world.decoder.conv, PatchDecoder)
    assert world.encoder.conv.patches.kernel_size == world.decoder.conv.out.kernel_size == (11, 11)


def test_patches_that_do_not_tile_a_picture_are_refused_in_a_sentence(
    task: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(
            APP, ["train", "--preset", "tiny", *task, "--convolutions", "patches", "--patch", "5"]
            + ["--logdir", str(tmp_path / "log")],
        )  # fmt: skip
    assert "multiples of 5: choose a --patch that divides both, or --convolutions strided" in capsys.readouterr().err


OF_PATCHES = ["--convolutions", "patches", "--latents", "patches", "--cell", "block", "--map_features", "4"]


@pytest.mark.parametrize(
    ("codes", "encoder", "decoder"),
    [("nearest", BookEncoder, BookDecoder), ("learned", SpriteEncoder, SpriteDecoder)],
)
def test_a_team_with_latents_of_patches_trains_is_killed_resumes_and_dreams(
    codes: str, encoder: type, decoder: type, task: list[str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    words = ["train", "--preset", "tiny", *task, *OF_PATCHES, "--codes", codes, "--logdir", str(log)]
    main(APP, [*words, "--steps", "60"])
    main(APP, [*words, "--steps", "80"])
    world = APP.load(log).agent.world
    assert isinstance(world.encoder.conv, encoder) and isinstance(world.decoder.conv, decoder)
    if codes == "nearest":  # black, grey and light; one book, saved and read
        book = world.encoder.conv.book
        assert book is world.decoder.conv.book and book.count > 2
    assert isinstance(world.dynamics.dynamics.cell, PatchCell) and world.dynamics.dynamics.shape[0] == 121
    main(APP, ["dream", str(log)])


@pytest.mark.parametrize("ask", [True, False])
@pytest.mark.parametrize(("predictor", "heard"), [("transformer", True), ("alone", False)])
def test_with_latents_of_patches_the_prior_of_an_agent_hears_of_the_other_by_the_predictor(
    predictor: str, heard: bool, ask: bool
) -> None:
    words = {
        "convolutions": "patches",
        "latents": "patches",
        "cell": "block",
        "map_features": 4,
        "predictor": predictor,
        "places_ask": ask,
    }
    config = overlay(resolve(APP, "tiny"), words, "test")
    world = make_world(config, describe(PAIRED, multiple=4), 3, 2)
    deter = torch.randn(2, world.dynamics.widths["deter"])
    was = world.dynamics.prior_logits(deter)
    deter[1] += torch.randn_like(deter[1])
    now = world.dynamics.prior_logits(deter)
    assert ((now - was)[0].abs().max() > 1e-4) == heard and (now - was)[1].abs().max() > 1e-3


def test_latents_of_patches_and_what_does_not_go_with_them(
    task: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, sentence in (
        (["--latents", "patches", "--cell", "block"], "add --convolutions patches, or leave out --latents patches"),
        ([*OF_PATCHES, "--cell", "gru"], "not gru: add --cell block"),
        ([*OF_PATCHES, "--map_features", "5"], "map_features is 5, of which half"),
    ):
        with pytest.raises(SystemExit):
            main(APP, ["train", "--preset", "tiny", *task, *words, "--logdir", str(tmp_path / "log")])
        assert sentence in capsys.readouterr().err
    config = overlay(resolve(APP, "tiny"), {"convolutions": "patches", "latents": "patches", "cell": "block"}, "test")
    both = spaces.Dict(PAIRED.spaces, ready=spaces.Box(0, 1, (1,), np.float32))
    with pytest.raises(UserError, match="'ready' is none: leave out --latents patches"):
        make_world(config, describe(both, multiple=4), 3, 2)


def test_a_team_in_pictures_of_44_trains_dreams_and_is_filmed(
    task: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    filmed: list[np.ndarray] = []
    monkeypatch.setattr("wm_run.folder.write_video", lambda path, frames, fps: filmed.append(frames))
    log = tmp_path / "log"
    main(APP, ["train", "--preset", "tiny", *task, "--final_video", "True", "--logdir", str(log)])
    told = capsys.readouterr()
    assert "no video" not in told.out + told.err
    (frames,) = filmed
    assert frames.shape[1:] == (44, 88, 3) and (frames[:, :, 74:] == 90).all() and (frames[5, :, :15] == 200).all()
    assert (log / "dream" / "80.json").exists()
    agent = APP.load(log).agent
    assert isinstance(agent.world.encoder.conv, StridedEncoder) and isinstance(agent.world.decoder.conv, StridedDecoder)


def test_latents_of_patches_are_of_all_images_together_which_need_not_be_square() -> None:
    words = {"convolutions": "patches", "latents": "patches", "cell": "block"}
    both = spaces.Dict(
        image=spaces.Box(0, 255, (44, 36, 3), np.uint8),
        depth=spaces.Box(0, 255, (44, 36, 1), np.uint8),
    )
    world = make_world(overlay(resolve(APP, "tiny"), words, "test"), describe(both, multiple=4), 3, 2)
    steps = {name: torch.zeros(2, 5, *box.shape, dtype=torch.uint8) for name, box in both.items()}
    steps |= {"first": torch.zeros(2, 5, dtype=torch.bool), "action": torch.zeros(2, 5, 3)}
    trace = world.observe(world.prefill(None, 2), steps)
    assert trace.post.shape[2] == 11 * 9
    assert {name: tuple(said.mode().shape[2:]) for name, said in world.decoder(trace.latent).items()} == {
        "image": (44, 36, 3),
        "depth": (44, 36, 1),
    }
