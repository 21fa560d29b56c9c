"""Names of several kinds meet in losses, logs, replay entries and submodules, and none is lost there."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from wm_core import names
from wm_core.encoders import MultiDecoder
from wm_core.observations import Observations
from wm_core.types import Latent

WORDS = [
    *dir(nn.ModuleDict()),
    "",
    ".",
    "a.b",
    "a%2Eb",
    "%",
    "%items",
    "%25items",
    "image",
    "two words",
    "a/b",
    "Ünicode",
]


def test_submodules_may_be_called_anything() -> None:
    spelled = [names.module(word) for word in WORDS]
    assert len(set(spelled)) == len(WORDS)
    held = nn.ModuleDict({name: nn.Linear(1, 1) for name in spelled})  # which raises for what it cannot hold
    assert len(held.state_dict()) == 2 * len(WORDS)


@pytest.mark.parametrize("word", ["image", "vector", "state", "a/b", "two words", "0", "obs/image", "Ünicode"])
def test_ordinary_submodules_keep_their_names_and_weights_of_old_runs_with_them(word: str) -> None:
    assert names.module(word) == word


def test_every_name_is_decoded_by_weights_of_its_own() -> None:
    seen = Observations(vectors=dict.fromkeys(WORDS, 1))
    decoder = MultiDecoder(seen, widths={"deter": 4, "stoch": 4}, units=8, depth=2)
    found = decoder(Latent(torch.randn(2, 4), torch.randn(2, 2, 2)))
    assert list(found) == WORDS
    assert len({one.mode()[0, 0].item() for one in found.values()}) == len(WORDS)  # type: ignore[attr-defined]


def test_logs_tell_every_loss_apart() -> None:
    words = ["value", "reward", "image", "obs/image", "obs/value", "obs/obs/image", ""]
    others = ["value", "reward", "dyn"]
    for some in itertools.chain.from_iterable(itertools.combinations(words, n) for n in range(len(words) + 1)):
        losses = [*names.observed(dict.fromkeys(some, 0)), *others]
        shown = names.logged(losses)
        assert len(set(shown.values())) == len(losses)
        assert all(shown[name] == name for name in others)


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(KeyError, match="'value'"):
        names.together({"image": 1, "value": 2}, {"value": 3})


def test_notes_are_apart_from_observations_of_their_names() -> None:
    entries = {"deter": 1, "first": 2} | names.noted({"deter": 3})
    assert len(entries) == 3 and names.notes(entries) == {"deter": 3}
