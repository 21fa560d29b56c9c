"""wm-run VERB ...: what is of no app. Which module does what; importing this imports no torch."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from wm_run import encoding, places
from wm_run.memory import exhausted
from wm_run.stop import say

# verb: (module, what it does). The module has `add_arguments(parser)` and `run(args, options) -> exit code`, where options are
# those of the task, `--env.NAME VALUE`.
VERBS = {
    "collect": (
        "wm_run.collect_command",
        "play a task and record it: at random, by a trained run, by a script, or by several",
    ),
    "import": (
        "wm_run.import_command",
        "make a recording of a data set: Minari, LeRobot, or a folder of .npz episodes",
    ),
    "look": ("wm_run.look", "what a recording holds"),
    "microscope": (
        "wm_run.microscope.command",
        "the same held-out rows through any runs: one page of what they make of them",
    ),
}


def main(words: Sequence[str] | None = None) -> int:
    """The command line. A user's mistake is one sentence on stderr and exit code 2."""
    words = sys.argv[1:] if words is None else list(words)
    encoding.open_streams()
    encoding.ensure(words, "wm-run")
    encoding.tolerate()
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0 if words else 2
    if words[0] not in VERBS:
        say(f"wm-run: there is no {words[0]!r}; there is {', '.join(VERBS)}")
        return 2
    try:
        return _run(words[0], words[1:])
    except KeyboardInterrupt:
        say("wm-run: interrupted")
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough; stdout is pointed elsewhere for the last flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        say(f"wm-run: {' '.join(sentence.split())}")
        return 2


def _run(verb: str, words: list[str]) -> int:
    from wm_run import task_options

    module = importlib.import_module(VERBS[verb][0])
    parser = argparse.ArgumentParser(
        prog=f"wm-run {verb}",
        description=VERBS[verb][1],
        allow_abbrev=False,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    module.add_arguments(parser)
    options, left = task_options.taken(words)
    return int(module.run(parser.parse_args(left), options))


def _sentence(error: Exception) -> str | None:
    """What to tell the user, or None for a fault of ours, which keeps its traceback."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if getattr(error, "user_error", False) or names & {"TaskError", "DataError"}:
        return str(error)
    if sentence := exhausted(error, trains=False):
        return sentence
    if isinstance(error, ModuleNotFoundError) and error.name in ("env_adapters", "wm_suite"):
        return f"the package {error.name} is missing: install it, as by `uv sync` in a checkout"
    return places.sentence(error, "") if isinstance(error, OSError) else None


def overview() -> str:
    """What is said without a verb."""
    lines = ["usage: wm-run VERB [OPTIONS]   (wm-run VERB --help)", ""]
    return "\n".join([*lines, *(f"  {verb:10} {about}" for verb, (_, about) in VERBS.items())])


if __name__ == "__main__":
    sys.exit(main())
