"""The script `wm-suite` for this repository: suites of tools/suites by name, rows in docs/results, measures of tools/.

uv run tools/suite.py plan | run | status | table | ... NAME   (--help)
"""

from __future__ import annotations

import pathlib
import sys

import doors
from wm_suite.command import main
from wm_suite.home import Home

ROOT = pathlib.Path(__file__).resolve().parents[1]
HOME = Home(
    cwd=ROOT,
    results=pathlib.Path("docs") / "results",
    suites=(pathlib.Path("tools") / "suites",),
    path=(pathlib.Path("tools"),),
    modern=doors.modern,
)

if __name__ == "__main__":
    sys.exit(main(home=HOME))
