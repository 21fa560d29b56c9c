"""The app as data."""

from __future__ import annotations

import dataclasses
from typing import Any
from unittest import mock

import r2i.agent
import r2i.parts
from r2i.cli import APP as R2I
from wm_core.rssm import RSSM

DETER, HIDDEN, BLOCKS = 2048, 256, 8  # of the 12m RSSM


def recurrent(config: Any, embed: int, action: int) -> RSSM:
    """The RSSM at the config's latents."""
    sizes = {"deter": DETER, "hidden": HIDDEN, "blocks": BLOCKS, "embed": embed, "action": action}
    return RSSM(stoch=(config.stoch, config.classes), **sizes)  # type: ignore[arg-type]


def build(config: Any, observation_space: Any, action_spec: Any) -> Any:
    """The agent of a config."""
    with (
        mock.patch.object(r2i.agent, "sequence_model", recurrent),
        mock.patch.object(r2i.parts, "by_name", return_value={}),  # no S5 tensors, hence no rules of their own
    ):
        made = r2i.agent.build(config, observation_space, action_spec)
    made.radius = dict  # type: ignore[method-assign] # there is no spectrum
    return made


APP = dataclasses.replace(R2I, name="r2i with an RSSM", build=build)
