"""wm-run import SOURCE: episodes that a reader of env-adapters yields -> a recording, every k-th episode held out."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wm_core.errors import UserError

from wm_run import durable
from wm_run.config import RunConfig
from wm_run.episode_check import EpisodeError
from wm_run.lock import locked
from wm_run.look import sentence
from wm_run.progress import Progress
from wm_run.recorder import Writer, under_way
from wm_run.recording import PARTS, PROGRESS, About, Recording
from wm_run.stop import say
from wm_run.tasks import Tasks
from wm_run.trust import remember

READERS = "env_adapters.recordings:opened"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `import` takes."""
    parser.add_argument(
        "source",
        help="the id or folder of a Minari data set, a LeRobot folder (format 2.1 or 3.0), or a folder of .npz episodes\n"
        "(action, reward, terminated, truncated and observations; see docs/recordings.md)",
    )
    parser.add_argument("--to", required=True, metavar="FOLDER", help="of the recording")
    parser.add_argument(
        "--kind", default="", choices=("", "minari", "lerobot", "npz"), help="where the folder does not tell"
    )
    parser.add_argument(
        "--held-out-every", type=int, default=10, metavar="K", help="every K-th episode is held out; 0: none"
    )
    parser.add_argument(
        "--task", default="", help="an environment of these spaces, such as gym:HalfCheetah-v5, for `eval`"
    )
    parser.add_argument("--drop", nargs="+", metavar="NAME", help="observations that are left out")
    parser.add_argument("--keep", nargs="+", metavar="COLUMN", help="of LeRobot: columns that are observations")
    parser.add_argument("--ends", default="", choices=("", "terminal", "truncated"), help="of LeRobot: what an end is")


def run(args: argparse.Namespace, options: Mapping[str, Any]) -> int:
    """Import. An import that was killed is begun anew by the same command."""
    asked = {"keep": args.keep, "ends": args.ends}
    recording = imported(
        args.source,
        Path(args.to).expanduser(),
        kind=args.kind,
        held_out_every=args.held_out_every,
        task=args.task,
        options=options,
        drop=args.drop,
        **{name: value for name, value in asked.items() if value},
    )
    if args.task and (notice := remember(Tasks(), RunConfig(task=args.task, env=dict(options)))):
        say(notice)
    print(sentence(recording))
    return 0


def imported(
    source: str,
    folder: Path,
    *,
    kind: str = "",
    held_out_every: int = 10,
    task: str = "",
    options: Mapping[str, Any] | None = None,
    readers: str = READERS,
    **reading: Any,
) -> Recording:
    """The recording of a data set. options: of the task. reading: of the reader. Raises UserError, and what the reader raises,
    for data that do not fit: nothing of a recording is left then."""
    if held_out_every < 0 or held_out_every == 1:
        raise UserError(
            f"--held-out-every {held_out_every} leaves nothing to learn from: give 2 or more, or 0 for none"
        )
    module, _, name = readers.partition(":")
    data = getattr(importlib.import_module(module), name)(source, kind=kind, **reading)
    for notice in data.notices:
        say(notice)
    with locked(folder, doing="recording into", instead="another folder with --to"):
        fresh = not any(path.name != ".lock" for path in folder.iterdir())
        if (folder / PROGRESS).is_dir() and under_way(folder) is None:  # an import that was killed
            for name in (*PARTS, PROGRESS):
                durable.erase(folder / name)
        writer = Writer(folder, About.of(data, task or data.task, options), asked={"source": source})
        try:
            with Progress(data.count, label="import") as progress:
                for at, episode in enumerate(data.episodes()):
                    held = held_out_every and at % held_out_every == held_out_every - 1
                    try:
                        writer.episode("held_out" if held else "train", episode)
                    except EpisodeError as error:
                        raise UserError(f"episode {at}: {error}") from error
                    progress.update(at + 1, steps=writer.actions("train") + writer.actions("held_out"))
        except ValueError:  # a sentence about the data: what was begun is of no use
            if fresh:
                for path in folder.iterdir():
                    durable.erase(path)
            raise
        steps = (writer.actions("train") + writer.actions("held_out")) * data.repeat
        writer.finish([{"who": data.who, "share": 1.0, "steps": steps, "seed": 0}])
    return Recording.open(folder)
