"""The app on a toy: trains, resumes exactly, loads, and tells mistakes in a sentence."""

import json

from dreamer.cli import APP
from wm_core.cli import main


def run(*words):
    main(APP, [str(word) for word in words])


def test_info_counts_the_12m_model(capsys):
    run("info", "--preset", "atari100k", "--json", "--device", "cpu")
    found = json.loads(capsys.readouterr().out)
    assert abs(found["parameters"]["total"] / 1e6 - 10.49) < 0.5 and found["protocol"]["sticky"] is not None
