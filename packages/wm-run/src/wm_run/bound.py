"""config and protocol -> what a checkpoint says of its run -> is this config.toml, are these environments, that run's?

A run folder's files can be edited, copied and lost one by one. The checkpoint holds a copy of both, under the seal of
its manifest, and what a resume may not change is held against it. What it may (`wm_run.config.Resumable`) stays out: `train` rewrites
config.toml at every start.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from wm_core.errors import UserError

from wm_run.config import RunConfig, resumable
from wm_run.configs import config_of

if TYPE_CHECKING:
    from wm_run.app import App
    from wm_run.checkpoint import Checkpoint
    from wm_run.cli import Command
    from wm_run.loop import Environments


def described(config: Mapping[str, Any], protocol: Mapping[str, Any]) -> dict[str, Any]:
    """For the meta of a checkpoint. config: what config.toml holds; protocol: what protocol.json holds."""
    return {"config": dict(config), "protocol": dict(protocol), "digest": digest(config, config["run"]["resumable"])}


def digest(config: Mapping[str, Any], free: Collection[str]) -> str:
    """Of the fields that a resume may not change. free: the names of those that it may.

    >>> one, longer, other = {"lr": 0.1, "steps": 10}, {"steps": 20, "lr": 0.1}, {"lr": 0.2, "steps": 10}
    >>> digest(one, ["steps"]) == digest(longer, ["steps"]) != digest(other, ["steps"])
    True
    """
    fixed = {name: value for name, value in config.items() if name != "run" and name not in free}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()


def settled(config: RunConfig, envs: Environments) -> RunConfig:
    """The config with what the run found out about its environments, where that was left to it: it is kept with the run,
    for the next look may find otherwise, and the networks would fit no more."""
    found: dict[str, Any] = {
        name: tuple(getattr(envs, name, ())) for name in ("grids", "drop")
    }  # no promise of Environments
    return replace(config, **{name: one for name, one in found.items() if getattr(config, name) is None})


def settle_command(command: Command, envs: Environments) -> Command:
    """The same in what was asked. A run of before there was the field takes what is found when it goes on."""
    saved = None if command.saved is None else settled(command.saved, envs)
    return replace(command, config=settled(command.config, envs), saved=saved)


def check(app: App, stated: RunConfig, saved: Checkpoint) -> None:
    """Raises UserError where config.toml is not what the checkpoint was made with; one without a copy is trusted.

    stated: the config of the run folder, as it stands there.
    """
    kept = saved.meta.get("config")
    free = resumable(app.config)
    if not isinstance(kept, Mapping) or digest(asdict(stated), free) == saved.meta.get("digest"):
        return
    old, new = asdict(config_of(app, kept, f"the config in {saved.path}")), asdict(stated)
    for name in old:  # a field that is newer than the checkpoint is on both sides what it was then
        if name not in free and old[name] != new[name] and old[name] is not None:  # None: see `settled`
            raise UserError(
                f"config.toml says {name} = {new[name]!r}, but {saved.path} was made with {old[name]!r}: put that back, or "
                f"take the weights into a new run with --init-from {saved.path}"
            )


def notices(saved: Checkpoint, protocol: Mapping[str, Any]) -> list[str]:
    """Sentences about what a resume cannot check, or finds changed. protocol: of the environments here."""
    if "config" not in saved.meta:
        return [f"{saved.path} holds no copy of its config, as of an earlier version: config.toml is taken at its word"]
    kept = saved.meta.get("protocol", {})
    odd = [
        f"{name}: {kept[name]} -> {protocol[name]}"
        for name in kept
        if name in protocol and kept[name] != protocol[name]
    ]
    return (
        [f"the environments' protocol has changed, scores before and after are not one curve: {'; '.join(odd)}"]
        if odd
        else []
    )
