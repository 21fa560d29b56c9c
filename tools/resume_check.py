"""Does a run that was stopped or killed go on as if nothing had happened? Tried on an app, in processes of its own.

resume_check.py --app dreamer --preset tiny --task toy:doors --steps 200            stopped at step 100
resume_check.py --app dreamer --preset tiny --task atari100k_boxing --steps 400 --stop 150
resume_check.py --app dreamer --preset tiny --task toy:catch --kill 6 --seed 1 --chunk 16 --replay-bytes 300000

The two laws are `wm_run.testing.check_resumed` and `check_killed`, whose docstrings say what is compared and where runs are
killed. Exit code 1 and the first differences of each part where there are any.

--waiting draws one batch ahead and writes notes back one update late, as beside a GPU, for which a thread that waits stands
in (tools/waiting.py): what is under way then belongs to what must not be lost.

--app --steps --stop --kill --at --seed --keep --waiting are the tool's own; every other option goes to the app's `train`. Kills
need checkpoints to go on from: choose --steps as several times the --save-every of the preset.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import tempfile
from pathlib import Path

from wm_core.errors import UserError
from wm_run.testing import PLACES, Failed, check_killed, check_resumed

WAITING = f"import sys; sys.path.insert(0, {str(Path(__file__).resolve().parent)!r}); import waiting; waiting.install()"


def main() -> None:
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    ap.add_argument("--app", default="dreamer", help="dreamer, po_dreamer, ...: its module")
    ap.add_argument("--steps", type=int, help="of the whole run (default 200; with kills 200 for each and 200 more)")
    ap.add_argument("--stop", type=int, help="where it is stopped (default half of --steps)")
    ap.add_argument("--kill", type=int, metavar="N", default=0, help="kill it N times instead")
    ap.add_argument("--at", metavar="PLACE", nargs="+", choices=PLACES, default=PLACES, help="where (default: all)")
    ap.add_argument("--seed", type=int, default=0, help="of the moments of the kills (default 0)")
    ap.add_argument("--keep", type=Path, metavar="DIR", help="where the run folders go and stay (default: they go)")
    ap.add_argument("--waiting", action="store_true", help="draw ahead and write back late, as beside a GPU")
    args, options = ap.parse_known_args()
    if importlib.util.find_spec(args.app) is None:
        ap.error(f"there is no app {args.app!r}: name its module, for example dreamer or po_dreamer")
    if args.keep and any((args.keep / name).exists() for name in ("unbroken", "resumed", "killed")):
        ap.error(f"{args.keep} holds runs of an earlier check: name another folder")
    steps, setup = args.steps or 200 * (args.kill + 1), WAITING if args.waiting else ""
    folder = (args.keep or Path(tempfile.mkdtemp(prefix="resume-check-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{args.app} {' '.join(options)}: {steps} steps")
    try:
        if args.kill:
            kills = {"kills": args.kill, "places": args.at, "seed": args.seed}
            check_killed(args.app, options, folder, steps=steps, setup=setup, **kills)
        else:
            check_resumed(args.app, options, folder, steps=steps, stop=args.stop, setup=setup)
    except (Failed, UserError) as error:
        print(f"FAILED: {error}\nthe run folders are kept in {folder}")
        raise SystemExit(1) from error
    if args.keep is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
