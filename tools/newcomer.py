"""What a newcomer does first, each with its seconds: in a fresh clone, by what README.md and the pages it names say, and nothing else.

python3 tools/newcomer.py [FOLDER]    clones this checkout's HEAD into FOLDER (default: a temporary folder), installs, watches,
                                      plays in a dream in Chromium, trains on an environment of its own, loads from a hub,
                                      exports; one line of a table each. Pictures and films stay where FOLDER was named

The hub is a server on loopback with one repository. Packages come from wherever uv finds them: with its cache filled, the seconds of
installing say little of a first time.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
UV = ("python3", "-m", "uv")
DROPPED = ("PYTHONPATH", "VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "DISPLAY")
ROBOT = """
import importlib.util
import env_adapters
assert importlib.util.find_spec("torch") is None
class Env:  # toy:catch, episode after episode; env-adapters needs no torch either
    def __init__(self, episodes):
        self.env, self.left, self.score = env_adapters.make("toy:catch"), episodes, 0.0
    def reset(self):
        self.left -= 1
        return self.env.reset(seed=self.left)[0]
    def step(self, action):
        observation, reward, terminated, truncated, _ = self.env.step(int(action.argmax()))
        self.score += reward
        if not terminated and not truncated:
            return observation, False
        return (self.reset(), True) if self.left else (None, False)
env = Env(20)
"""


def blocks(page: pathlib.Path) -> list[str]:
    """The Python of a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in DROPPED}
    return kept | {"OMP_NUM_THREADS": "1"} | more


def run(*command: str | pathlib.Path, at: pathlib.Path, **more: str) -> str:
    """A command's output; ends the trial where it does not end well."""
    done = subprocess.run(
        [*map(str, command)], check=False, cwd=at, env=environment(**more), capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(
            f"{' '.join(map(str, command))}: ended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return done.stdout


def install(clone: pathlib.Path) -> str:
    run(*UV, "sync", at=clone)
    return "`python3 -m uv sync`: the pinned environment"


def watch(clone: pathlib.Path) -> str:
    printed = run(*UV, "run", "apps/dreamer", "play", "pretrained:catch", "--episodes", "10", at=clone).splitlines()
    assert (clone / printed[-1]).stat().st_size > 20_000
    scores = [float(line.split()[3]) for line in printed if line.startswith("episode ")]
    return f"`uv run apps/dreamer play pretrained:catch --episodes 10`: a film; it caught {scores.count(1)} of {len(scores)}"


def dream_in_the_browser(clone: pathlib.Path) -> str:
    """Ctrl-C ends it, as its line says."""
    command = [*UV, "run", "python", "-c", HEARD, "play", "pretrained:catch", "--browser"]
    playing = subprocess.Popen(
        command, cwd=clone, env=environment(), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert playing.stdout is not None
    try:
        address = next(line.split()[1] for line in playing.stdout if line.startswith("open "))
        looked = run(*UV, "run", "--no-project", "tools/look_play.py", address, "looked", at=clone)
    finally:
        os.killpg(playing.pid, signal.SIGINT)  # what Ctrl-C reaches
        playing.wait(60)
    found = json.loads(looked.strip().splitlines()[-1])
    steps = ("wheel", "policy", "keys", "released", "paused", "dreaming", "dreamed", "woken")
    assert all(found[name] is True for name in steps) and not found["console"] and not found["elsewhere"], found
    return (
        "`play pretrained:catch --browser`, by a script in Chromium: keys held, dreamed, woken, no word on the console"
    )


HEARD = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # Ctrl-C, which a job in the background would ignore
sys.argv = ["dreamer", *sys.argv[1:]]
runpy.run_module("dreamer", run_name="__main__")
"""


def train_from_python(clone: pathlib.Path) -> str:
    """README's files, as it has them."""
    for block in blocks(clone / "README.md"):
        if found := re.match(r"# (\w+\.py)\n", block):
            (clone / found[1]).write_text(block)
    scores = [
        float(line.split()[1]) for line in run(*UV, "run", "python", "learn.py", at=clone).splitlines() if score(line)
    ]
    last = scores[-20:]
    return f"README's `my_env.py` and `learn.py`: {len(scores)} episodes, the last {len(last)} scored {sum(last) / len(last):.2f} of 1"


def score(line: str) -> bool:
    return re.fullmatch(r"\d+ -?[\d.]+", line) is not None


def act(clone: pathlib.Path) -> str:
    (clone / "act.py").write_text((clone / "act.py").read_text().replace('load("runs/walk")', 'load("walk")'))
    return f"README's `act.py` with the agent that `learn.py` saved: score {run(*UV, 'run', 'python', 'act.py', at=clone).split()[-1]}"


@contextlib.contextmanager
def hub(folder: pathlib.Path) -> Iterator[str]:
    """A server of one repository, someone/catch: what a download asks of a hub."""

    class Hub(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            file = folder / self.path.partition("?")[0].rpartition("/")[2]
            known = self.path.startswith("/someone/catch/resolve/") and file.is_file()
            text = file.read_bytes() if known else b""
            self.send_response(200 if known else 404)
            for name, value in (("Content-Length", str(len(text))), ("X-Repo-Commit", "1" * 40)):
                self.send_header(name, value)
            self.send_header(
                "ETag" if known else "X-Error-Code", f'"{hashlib.sha1(text).hexdigest()}"' if known else "EntryNotFound"
            )
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(text)

        do_HEAD = do_GET

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def load_from_a_hub(clone: pathlib.Path) -> str:
    code = 'import dreamer; agent = dreamer.load("hf:someone/catch"); print(agent.eval(20)["score"])'
    with hub(clone / "pretrained" / "catch") as address:
        more = {"HF_ENDPOINT": address, "HF_HOME": str(clone / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        score = run(*UV, "run", "python", "-c", code, at=clone, **more).split()[-1]
    return f'`dreamer.load("hf:someone/catch")` from a server on loopback: {score} of 1 in 20 episodes'


def export_and_act_without_torch(clone: pathlib.Path) -> str:
    run(*UV, "run", "apps/dreamer", "export", "pretrained:catch", "--out", "robot", at=clone)
    (loop,) = blocks(clone / "docs" / "export.md")
    (clone / "robot" / "robot.py").write_text(f"{ROBOT}{loop}\nprint(env.score / 20)\n")
    alone = (*UV, "run", "--no-project", "--with", "onnxruntime", "--with", clone / "packages" / "env-adapters")
    score = run(*alone, "python", "robot.py", at=clone / "robot").split()[-1]
    return f"`export`, then the loop of docs/export.md in an environment without torch: {score} of 1 in 20 episodes"


def main() -> None:
    named = sys.argv[1:]
    if any(one.startswith("-") for one in named):
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory(prefix="newcomer-") as temporary:
        clone = pathlib.Path(named[0] if named else temporary).resolve() / "world-models"
        begun = time.monotonic()
        run("git", "clone", "-q", ROOT, clone, at=ROOT)
        commit = run("git", "log", "-1", "--format=%h", at=clone).strip()
        print(f"| s | what, at {commit} |\n|---|---|\n| {time.monotonic() - begun:.0f} | `git clone` |", flush=True)
        for step in (
            install,
            watch,
            dream_in_the_browser,
            train_from_python,
            act,
            load_from_a_hub,
            export_and_act_without_torch,
        ):
            begun = time.monotonic()
            outcome = step(clone)
            print(f"| {time.monotonic() - begun:.0f} | {outcome} |", flush=True)


if __name__ == "__main__":
    main()
