"""`python -m wm_run.microscope RUN...`: what `wm-run microscope` does, where that script is not at hand."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from wm_run.microscope.command import add_arguments, run
from wm_run.stop import say


def main(words: Sequence[str] | None = None) -> int:
    """A user's mistake is one sentence on stderr and exit code 2."""
    parser = argparse.ArgumentParser(prog="wm-run microscope", allow_abbrev=False)
    add_arguments(parser)
    try:
        return run(parser.parse_args(words), {})
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name in ("wm_suite", "matplotlib")
        if not missing and not getattr(error, "user_error", False):
            raise
        say(
            f"wm-run microscope: {'install wm-run[plot], which brings wm-suite' if missing else ' '.join(str(error).split())}"
        )
        return 2


if __name__ == "__main__":
    sys.exit(main())
