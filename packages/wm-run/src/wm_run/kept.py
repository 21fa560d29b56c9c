"""A loaded agent -> a folder of it alone, and its scores in fresh episodes: what `agent.save` and `agent.eval` do."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wm_core.errors import UserError

from wm_run import durable, scoring
from wm_run.options import Memory
from wm_run.results import plain_json
from wm_run.rollout import LONGEST

if TYPE_CHECKING:
    from wm_run.loading import Loaded

ABOUT = ("config.toml", "protocol.json", "env.json")  # of a run folder


def save(loaded: Loaded, folder: Path) -> Path:
    """Config, protocol and the agent's checkpoint, without replay and logs: `load`, `eval`, `play`, `export` and
    `--init-from` take it; to go on learning takes the run's own folder. Raises UserError where something is there already,
    or where the run's checkpoint is gone."""
    if loaded.logdir is None:
        raise UserError("this agent comes from no folder, and there is no checkpoint of it to save")
    source = loaded.logdir / "checkpoint" / str(loaded.step)
    if folder.exists():
        raise UserError(f"{folder} is there already: save the agent in another folder")
    if not source.is_dir():
        raise UserError(
            f"{source}, which this agent was loaded from, is gone: load it again with load({str(loaded.logdir)!r})"
        )
    draft = folder.with_name(f".{folder.name}.draft")
    durable.erase(draft)
    try:
        shutil.copytree(source, draft / "checkpoint" / source.name)
        for name in ABOUT:
            if (loaded.logdir / name).is_file():
                shutil.copy2(loaded.logdir / name, draft / name)
        draft.rename(folder)
    finally:
        durable.erase(draft)
    return folder


def scores(loaded: Loaded, episodes: int, mode: bool | None, memory: Memory = "auto") -> dict[str, Any]:
    """What `eval` prints, of `episodes` episodes. mode: act by the policy's mode, or by samples; None: as the run says.
    memory: what it begins with, as `eval --memory` has it."""
    if episodes < 1:
        raise UserError(f"episodes must be at least 1, not {episodes}")
    app, config = loaded.app, loaded.config
    acting: Literal["sample", "mode"] = config.eval_acting if mode is None else "mode" if mode else "sample"
    remembers = scoring.begins_remembering(loaded, memory)
    carry = loaded.carry if remembers else None
    found = scoring.play(app, config, loaded.agent, loaded.protocol, episodes=episodes, acting=acting, carry=carry)
    if len(found.episodes) < episodes:
        raise UserError(f"an episode has not ended after {LONGEST:,} steps: is there a limit of time in {config.task}?")
    protocol = plain_json(loaded.protocol)
    return plain_json(scoring.result(app, config, loaded.step, found, protocol, remembers=remembers))
