"""wm-run collect TASK: the words of the command -> a recording in a folder."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from wm_run.options import Memory
from wm_run.stop import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `collect` takes."""
    parser.epilog = "--env.NAME VALUE gives an option of the task, such as --env.cues 8"
    parser.add_argument("task", help="a name as of `train --task`, such as atari100k_breakout")
    parser.add_argument(
        "--to", required=True, metavar="FOLDER", help="of the recording; the same command goes on with it"
    )
    parser.add_argument("--steps", required=True, type=int, help="environment steps of train, with action repeat")
    parser.add_argument(
        "--who",
        nargs="+",
        default=["random"],
        metavar="PLAYER[:SHARE]",
        help="random, the folder of a run, or module:function of records to actions; each plays whole episodes, as many as\n"
        "make up its share of the steps: --who random:0.5 runs/x:0.5",
    )
    parser.add_argument(
        "--held-out", type=float, default=0.1, help="as a share of --steps, so many more that no training sees"
    )
    parser.add_argument("--envs", type=int, default=16, help="environments side by side: streams of train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--workers", type=int, default=-1, help="environment processes; -1 leaves the choice to the adapter"
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="of trained players")
    parser.add_argument(
        "--memory",
        default="auto",
        choices=get_args(Memory),
        help="what trained players remember at the start: training's last steps, or nothing; auto is training's for an agent\n"
        "whose memory outlives episodes",
    )
    parser.add_argument(
        "--trust", action="store_true", help="run the code that a run folder names or holds, of whoever gave it to you"
    )


def run(args: argparse.Namespace, options: Mapping[str, Any]) -> int:
    """Collect, or go on. 0, or 3 where it was told to stop before the end."""
    from wm_run.collect import Collection, collect
    from wm_run.look import sentence

    if args.trust:
        os.environ["ENV_ADAPTERS_TRUST"] = "1"
    names = ("task", "steps", "who", "seed", "envs", "held_out", "workers", "device", "memory")
    asked = {name: getattr(args, name) for name in names}
    found = collect(Collection(folder=Path(args.to).expanduser(), options=options, **asked))
    if found is None:
        say(f"stopped; the same command goes on with {args.to}")
        return 3
    print(sentence(found))
    return 0
