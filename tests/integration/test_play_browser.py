"""The page of `play --browser` in a real Chromium, driven by a script: keys move, real and dreamed are switched, nothing is
said on the console."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


HEARD = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # Ctrl-C, which a job in the background would ignore
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__")
"""


@pytest.mark.skipif(shutil.which("uv") is None, reason="the script that drives Chromium is run by uv")
@pytest.mark.parametrize("app", ["dreamer", "po_dreamer"])
def test_a_user_plays_in_the_page(app: str, tmp_path: Path) -> None:
    train = ["train", "--preset", "tiny", "--steps", "60", "--logdir", str(tmp_path / "run"), "--final-video", "False"]
    subprocess.run([sys.executable, "-m", app, *train], check=True, capture_output=True, timeout=600)
    playing = subprocess.Popen(
        [sys.executable, "-c", HEARD, app, "play", str(tmp_path / "run"), "--browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert playing.stdout is not None
        lines = iter(playing.stdout.readline, "")
        address = next(line.split()[1] for line in lines if line.startswith("open "))
        uv = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        looked = subprocess.run(
            ["uv", "run", "--no-project", str(ROOT / "tools/look_play.py"), address, str(tmp_path / "seen")],
            capture_output=True,
            text=True,
            timeout=900,
            env=uv,
            check=True,
        )
    finally:
        playing.send_signal(signal.SIGINT)
        _, told = playing.communicate(timeout=120)
    assert playing.returncode == 0 and told.strip().endswith("ended")
    found = json.loads(looked.stdout.strip().splitlines()[-1])
    steps = ("wheel", "policy", "keys", "released", "paused", "stands", "dreaming", "dreamed", "woken")
    assert {name: found[name] for name in steps} == dict.fromkeys(steps, True)
    assert found["console"] == [] and found["elsewhere"] == [] and found["unnamed"] == 0 and found["alts"] == 0
    assert found["remembers"] == (app == "po_dreamer")
    assert app != "po_dreamer" or found["recalled"] and found["recalled frames"] > 1
    for way in ("light", "dark", "narrow"):
        assert found[f"{way} contrast"] == {} and found[f"{way} wide"] <= 0, way
        assert (tmp_path / "seen" / f"{way}.png").stat().st_size > 5_000
