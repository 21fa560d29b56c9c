"""The law of an app: what every app of this house does, whatever it trains. An app's own tests say only what is its own."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from wm_core.errors import UserError

from wm_run import checkpoint, dreams
from wm_run.app import App
from wm_run.cli import main
from wm_run.loading import has_world
from wm_run.testing.data import check_data
from wm_run.testing.nursery import Failed

FILES = ("config.toml", "protocol.json", "env.json", "metrics.jsonl", "scores.jsonl", "checkpoint", "replay")
TINY = ("train", "--preset", "tiny", "--device", "cpu")


def check_app(app: App, place: Path, *options: object) -> Path:
    """Train the preset tiny in `place` and hold the app to the law; the run folder. Raises Failed, saying what broke.

    A run leaves its files, goes on where it was, is evaluated, dreams (or says that there is no world model), is plotted
    (where wm-suite is installed), acts by `load` and, published, plays as before; a user's mistake is one sentence, exit code 2
    and no run folder; it learns from a recording alone, or says that it does not (`testing.data`). options: of the preset's run.
    """
    logdir = place / "run"
    with _shortly(place):
        _run(app, [*TINY, "--logdir", logdir, *options])
        if missing := [name for name in FILES if not (logdir / name).exists()]:
            raise Failed(f"a run of {app.name} leaves no {', '.join(missing)}")
        check_finite(app, logdir)
        check_goes_on(app, logdir)
        _run(app, ["info", *TINY[1:]])
        _run(app, ["eval", logdir, "--episodes", 2])
        check_dreams(app, logdir)
        if importlib.util.find_spec("wm_suite") and importlib.util.find_spec("matplotlib"):
            _run(app, ["plot", logdir, "--out", place / "report"])
            if not (place / "report.html").is_file():
                raise Failed("`plot --out report` leaves no report.html")
        check_acts(app, logdir)
        check_published(app, logdir, place)
        for line, words in mistakes(app).items():
            check_refusal(app, line, words, place)
        check_other_runs(app, place)
        check_data(app, place / "data", *options)
    return logdir


def check_finite(app: App, logdir: Path) -> None:
    """Every number of a run's log is finite; null stands for one that is not. (Losses and weights stop the run itself.)"""
    odd = {name for row in _rows(logdir / "metrics.jsonl") for name, value in row.items() if value is None}
    if odd:
        raise Failed(f"{min(odd)}, in the log of a run of {app.name}, is not finite")


def check_goes_on(app: App, logdir: Path) -> None:
    """More steps are more of the same run: its rows stay, and others follow."""
    before, config = _rows(logdir / "metrics.jsonl"), _step(logdir)
    _run(app, ["train", "--logdir", logdir, "--steps", 2 * config])
    after = _rows(logdir / "metrics.jsonl")
    if after[: len(before)] != before or len(after) <= len(before) or _step(logdir) < 2 * config:
        raise Failed(f"a run of {app.name} with more steps does not go on from its {config} steps")


def check_dreams(app: App, logdir: Path) -> None:
    """`dream` ends well, or is refused in a sentence by a learner without a world model."""
    if has_world(app.load(logdir).agent):
        _run(app, ["dream", logdir])
        return
    code, _, err = _said(app, ["dream", logdir])
    if code != 2 or "learns no world model" not in err:
        raise Failed(f"`{app.name} dream` of a learner without a world model ends with {code} and says {err!r}")


def check_acts(app: App, logdir: Path) -> None:
    """`load(logdir).policy` gives actions of the environment's space; of a team's, one for each agent."""
    loaded = app.load(logdir)
    with closing(app.part("environments")(loaded.config, 1)) as envs:
        record = envs.reset(0)
        observation = {name: record[name][0] for name in envs.observation_space.spaces}
        if loaded.team is None:
            actions = [loaded.policy(observation)[0]]
        else:
            actions = loaded.policy(observation, mask=record["action_mask"][0])[0]
            if len(actions) != loaded.team.agents:
                raise Failed(f"`load(logdir).policy` gives {len(actions)} actions to {loaded.team.agents} agents")
        for action in actions:
            if not loaded.action_space.contains(action):
                raise Failed(f"`load(logdir).policy` gives {action!r}, which is not in {loaded.action_space}")


def check_published(app: App, logdir: Path, place: Path) -> None:
    """What is published of a run plays the episodes that the run plays, from what it remembers."""
    gift = place / "published"
    _run(app, ["publish", logdir, "--to", gift])
    evaluations = [json.loads(_run(app, ["eval", one, "--episodes", 2])) for one in (logdir, gift)]
    if evaluations[0] != evaluations[1]:
        raise Failed(
            f"a published agent of {app.name} scores {evaluations[1]['scores']}, and its run {evaluations[0]['scores']}"
        )


def mistakes(app: App) -> Mapping[str, str]:
    """Lines that no app takes, and words of the sentence that says so."""
    tiny = " ".join(TINY)
    return {
        "train --preset tinny": "there is no preset 'tinny'; did you mean 'tiny'",
        f"{tiny} --ablation nothing-of-the-kind": "there is no ablation 'nothing-of-the-kind'",
        f"{tiny} --bacth 3": "did you mean '--batch'",
        f"{tiny} --batch 0": "batch must be at least 1, not 0",
        f"{tiny} --batch many": "--batch takes a whole number, not 'many'",
        f"{tiny} --length 1": "length must be at least 2",
        f"{tiny} --seed 99999999999999999999": "seed must lie in",
        f"{tiny} --task nowhere:factory": "no module 'nowhere' to import",
        "eval nowhere": "there is no run in nowhere",
        "dream nowhere": "there is no run in nowhere",
        "play nowhere": "there is no run in nowhere",
    }


def check_refusal(app: App, line: str, words: str, place: Path) -> None:
    """A mistake is one sentence on stderr with these words, exit code 2, and leaves no run folder."""
    code, out, err = _said(app, line.split())
    if code != 2 or out or words not in err or err.count("\n") != 1 or not err.startswith(f"{app.name}: "):
        raise Failed(f"`{app.name} {line}` ends with {code} and says {err or out!r}, not a sentence with {words!r}")
    if (place / "runs").exists():
        raise Failed(f"`{app.name} {line}` is refused, and leaves a run folder")


def check_other_runs(app: App, place: Path) -> None:
    """A run of another app, one that has not saved yet, and numbers that a run was not started with."""
    folder = place / "other"
    folder.mkdir()
    text = 'task = "toy:catch"\nsteps = 0\nenvs = 3\nbatch = 3\n[run]\npreset = "tiny"\napp = '
    (folder / "config.toml").write_text(f'{text}"another"\n')
    for line in ("train --logdir other", "eval other", "dream other"):
        check_refusal(app, line, f"other holds a run of 'another', not of '{app.name}': use that app", place)
    with contextlib.suppress(UserError):
        app.load(folder)
        raise Failed(f"{app.name}'s `load` takes a run of another app")
    (folder / "config.toml").write_text(f'{text}"{app.name}"\n')
    check_refusal(app, "eval other", "there is no checkpoint in other yet", place)
    check_refusal(app, "train --logdir other --batch 5", "batch: 3 became 5", place)
    check_refusal(app, "train --logdir other --preset cpu", "was started with preset 'tiny', not 'cpu'", place)


@contextlib.contextmanager
def _shortly(place: Path) -> Iterator[None]:
    """In that folder, with films of few frames."""
    frames, before = (dreams.VIDEO_STEPS, dreams.DREAM_STEPS), Path.cwd()
    os.chdir(place)
    dreams.VIDEO_STEPS, dreams.DREAM_STEPS = 12, 20
    try:
        yield
    finally:
        os.chdir(before)
        dreams.VIDEO_STEPS, dreams.DREAM_STEPS = frames


def _run(app: App, words: Sequence[object]) -> str:
    """What it said on stdout."""
    code, out, err = _said(app, words)
    if code:
        raise Failed(f"`{app.name} {' '.join(map(str, words))}` ends with {code}: {err}")
    return out


def _said(app: App, words: Sequence[object]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(app, [str(word) for word in words])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return code, out.getvalue(), err.getvalue()


def _rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _step(logdir: Path) -> int:
    found = checkpoint.latest(logdir)
    if found is None:
        raise Failed(f"there is no checkpoint in {logdir}")
    return int(found.name)
