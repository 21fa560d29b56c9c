"""An app without a method: it counts steps into a sum, saves when it is asked to end, and goes on. No package is needed.

python -m fake_app train --task T --seed N --logdir D [--steps N] [--pace SECONDS] [--die N] [--refuse TEXT] [--save-every N]

--linger: seconds that saving takes when it is asked to end. --die: the first N processes of a run are killed in the middle. --refuse: a user's mistake. --crash: a fault of the app.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=("train", "info"))
    for name in ("task", "preset", "ablation", "refuse", "crash", "logdir"):
        parser.add_argument(f"--{name}", default="")
    for name, default in (("seed", 0), ("steps", 20), ("die", 0), ("save-every", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--pace", type=float, default=0.0)
    parser.add_argument("--dawdle", type=float, default=0.0)
    parser.add_argument("--linger", type=float, default=0.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--count", action="store_true")
    args = parser.parse_args()
    if args.refuse:
        print(f"fake_app: {args.refuse}", file=sys.stderr)
        return 2
    if args.command == "info":
        shapes = {
            "updates": args.steps,
            "ram_bytes": 3e9,
            "disk_bytes": 1e9,
            "flops_per_update": 10**12,
            "parameters": 7,
        }
        print(json.dumps({"estimate": shapes | ({} if args.count else {"hours": 2.0})}))
        return 0
    logdir = Path(args.logdir)
    logdir.mkdir(parents=True, exist_ok=True)
    with (logdir / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("fake_app: another process is training there", file=sys.stderr)
            return 2
        return train(args, logdir)


def train(args: argparse.Namespace, logdir: Path) -> int:
    time.sleep(args.dawdle)
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    note(logdir / "begun", f"{os.getpid()}\n")
    begun = len((logdir / "begun").read_text().splitlines())
    origin = f'[run]\napp = "fake_app"\npreset = "{args.preset}"\nablation = "{args.ablation}"\n'
    (logdir / "config.toml").write_text(
        f'task = "{args.task}"\nseed = {args.seed}\nsteps = {args.steps}\npace = {args.pace}\n{origin}'
    )
    (logdir / "protocol.json").write_text(json.dumps({"task": args.task, "repeat": 1}))
    about = {
        "commit": "0123456789abcdef",
        "hardware": {"cpu": "any", "cores": 1},
        "python": "3",
        "packages": {"wm-run": "0"},
    }
    (logdir / "env.json").write_text(json.dumps(about))
    kept = logdir / "state.json"
    state: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {"step": 0, "sum": 0, "scores": []}
    if args.crash:
        raise RuntimeError(args.crash)
    while state["step"] < args.steps and not asked:
        time.sleep(args.pace)
        state["step"] += 1
        state["sum"] = (31 * state["sum"] + args.seed + state["step"]) % 1009
        state["scores"].append({"step": state["step"], "episode/score": float(state["sum"])})
        if state["step"] % args.save_every == 0:
            save(kept, state, logdir)
            if begun <= args.die:
                os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(args.linger if asked else 0)
    save(kept, state, logdir)
    return 128 + asked[0] if asked else 0


def save(kept: Path, state: dict[str, Any], logdir: Path) -> None:
    draft = kept.with_name("state.draft")
    draft.write_text(json.dumps(state))
    draft.replace(kept)
    (logdir / "scores.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in state["scores"]))


def note(file: Path, text: str) -> None:
    with file.open("a") as opened:
        opened.write(text)


if __name__ == "__main__":
    sys.exit(main())
