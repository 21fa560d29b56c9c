"""What every app does, and what a kill leaves."""

from pathlib import Path

from dmawm.cli import APP
from wm_run.testing import check_app


def test_it_obeys_the_law_of_an_app(tmp_path: Path) -> None:
    check_app(APP, tmp_path)
