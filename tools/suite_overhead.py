"""What a suite adds to a run: many runs of an app that sleeps for a second, from the command line to the last row.

suite_overhead.py [--runs 200] [--slots 2] [--on local]   a line of JSON

Overhead a run is the time of a slot (wall time times slots) less the seconds slept, over the runs. A run is two processes
of Python here, the app's and its measure's; what two empty ones take on the same machine just then is beside it.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

from wm_suite.command import main as suite
from wm_suite.home import Home

ROOT = pathlib.Path(__file__).resolve().parents[1]
FAKE = ROOT / "packages" / "wm-suite" / "tests" / "fake"  # an app without a method
SECOND = "steps = 10\npace = 0.1\n"


def empty(times: int = 10) -> float:
    """Seconds of two empty Pythons, one after the other: the median."""
    found = []
    for _ in range(times):
        begun = time.monotonic()
        for _ in range(2):
            subprocess.run([sys.executable, "-c", "pass"], check=True)
        found.append(time.monotonic() - begun)
    return sorted(found)[times // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--on", default="local")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Home(cwd=pathlib.Path(folder), path=(FAKE,))
        file = home.cwd / "sleep.toml"
        seeds = list(range(args.runs))
        file.write_text(
            f'measure = "fake_measures:total"\n[options]\n{SECOND}[[run]]\napp = "fake_app"\ntasks = ["toy"]\nseeds = {seeds}\n'
        )
        begun = time.monotonic()
        code = suite(["run", str(file), "--no-trial", "--slots", str(args.slots), "--on", args.on], home)
        wall = time.monotonic() - begun
    found = {"runs": args.runs, "slots": args.slots, "on": args.on, "wall_s": round(wall, 1), "code": code}
    found["overhead_a_run_s"] = round(wall * args.slots / args.runs - 1, 3)
    print(json.dumps(found | {"two_empty_pythons_s": round(empty(), 3)}))


if __name__ == "__main__":
    main()
