"""A team that is recorded, with the masks that its agents obeyed, and learned from without its environment."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dmawm.cli import APP
from wm_run.cli import main
from wm_run.collect import Collection, collect
from wm_run.recording import Recording

TINY = ["--preset", "tiny", "--device", "cpu", "--final-video", "False"]
LEAVERS = "toy:leavers"  # masks that change with every step, and agents that leave


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Half random, half an agent of this app that has learned nothing."""
    place = tmp_path_factory.mktemp("team")
    played = [*TINY, "--task", LEAVERS, "--steps", "8", "--learning-starts", "999", "--logdir", str(place / "run")]
    main(APP, ["train", *played])
    who = ("random:0.5", f"{place / 'run'}:0.5")
    found = collect(Collection(LEAVERS, place / "recording", 160, who=who, envs=2, workers=0, device="cpu"))
    assert found is not None
    return found


def test_a_team_is_recorded_with_masks_that_were_obeyed(team: Recording) -> None:
    assert team.about.team is not None and team.about.team.agents == 3
    assert [one["who"] for one in team.source] == ["random", "run:run"]
    for part in ("train", "held_out"):
        there = list(team.records(part))
        assert len(there) > 15 and any(not record["alive"].all() for record in there)
        for before, after in itertools.pairwise(there):
            led = after["action"] * ~after["first"][:, None, None]
            assert led.shape == before["action_mask"].shape and led.shape[1] == 3
            assert (before["action_mask"] | (led == 0)).all()  # nothing that was forbidden
            assert np.array_equal(led.sum(-1), np.broadcast_to(~after["first"][:, None], led.shape[:2]))


@pytest.mark.parametrize("behaviour", ["True", "False"])
def test_a_team_is_learned_from_without_its_environment(
    behaviour: str, team: Recording, tmp_path: Path, capfd: Any
) -> None:
    words = ["--data", team.folder, "--steps", 24, "--behaviour", behaviour, "--held-out-every", 8]
    main(APP, ["train", *TINY, *map(str, words), "--logdir", str(tmp_path / "D")])
    lines = [json.loads(line) for line in (tmp_path / "D/metrics.jsonl").read_text().splitlines()]
    losses = {name for line in lines for name in line if name.startswith("held_out/loss/")}
    assert "held_out/loss/action_mask" in losses
    capfd.readouterr()
    main(APP, ["eval", str(tmp_path / "D"), "--episodes", "2"])
    assert len(json.loads(capfd.readouterr().out)["scores"]) == 2
