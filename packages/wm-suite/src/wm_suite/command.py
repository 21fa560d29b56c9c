"""wm-suite VERB SUITE ...: which module does what."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from wm_suite.home import Home

# verb: (module, what it does). The module has `main(words, home) -> exit code`, or, where it needs no home,
# `add_arguments(parser)` and `run(args) -> exit code`.
VERBS = {
    "plan": ("wm_suite.planning", "the runs that have no row yet; one command a run for any queue"),
    "run": ("wm_suite.running", "train and measure them; the same command goes on where it was stopped"),
    "status": ("wm_suite.status", "done, running, stopped, failed, missing"),
    "table": ("wm_suite.markdown", "a table in Markdown and learning curves from the rows"),
    "report": ("wm_suite.report_command", "a page of scores with their passports, from a suite, rows or run folders"),
    "verify": ("wm_suite.verify_command", "whether a page's numbers are what its rows give"),
    "export": ("wm_suite.export_command", "score files of other projects, from rows or run folders"),
}


def main(words: Sequence[str] | None = None, home: Home | None = None) -> int:
    """The command line. A user's mistake is one sentence on stderr and exit code 2."""
    words = sys.argv[1:] if words is None else list(words)
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0 if words else 2
    if words[0] not in VERBS:
        print(f"wm-suite: there is no {words[0]!r}; there is {', '.join(VERBS)}", file=sys.stderr)
        return 2
    try:
        module = importlib.import_module(VERBS[words[0]][0])
        if hasattr(module, "main"):
            return int(module.main(words[1:], Home() if home is None else home))
        parser = argparse.ArgumentParser(prog=f"wm-suite {words[0]}", description=VERBS[words[0]][1])
        module.add_arguments(parser)
        return int(module.run(parser.parse_args(words[1:])))
    except BrokenPipeError:
        return 141
    except OSError as error:  # a page, a table or a file of scores that cannot be written or read
        print(f"wm-suite: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except Exception as error:
        if not getattr(error, "user_error", False):
            raise
        print(f"wm-suite: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def overview() -> str:
    """What is said without a verb."""
    lines = ["usage: wm-suite VERB SUITE [OPTIONS]   (wm-suite VERB --help)", ""]
    return "\n".join([*lines, *(f"  {verb:8} {about}" for verb, (_, about) in VERBS.items())])


if __name__ == "__main__":
    sys.exit(main())
