"""What a user is told to type is what starts the program where this user sits; other ranks start as the first did."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys

import pytest
from wm_run import typed
from wm_run.app import App
from wm_run.cli import main
from wm_run.encoding import tolerate

ARGUMENTS = ["train", "--logdir", "a b"]


@pytest.fixture
def paths(monkeypatch) -> None:
    """A machine with uv on the path."""
    monkeypatch.setattr(typed.shutil, "which", {"uv": "/bin/uv", "po-dreamer": "/env/bin/po-dreamer"}.get)


@pytest.mark.parametrize(
    "own, script, above, expected",
    [
        ("/env/bin/python3 apps/po_dreamer", "apps/po_dreamer", "uv run apps/po_dreamer", "uv run apps/po_dreamer"),
        ("/env/bin/python3 apps/r2i", "apps/r2i", "/far/bin/uv run --no-sync apps/r2i", "uv run --no-sync apps/r2i"),
        ("/env/bin/python3 /env/bin/r2i", "/env/bin/r2i", "uv run r2i", "uv run r2i"),
        ("/env/bin/python3 /env/bin/po-dreamer", "/env/bin/po-dreamer", None, "po-dreamer"),
        ("/env/bin/python3 /env/bin/r2i", "/env/bin/r2i", None, "/env/bin/r2i"),  # its folder is not on the path
        (".venv/bin/python -m r2i", "/src/r2i/__main__.py", None, ".venv/bin/python -m r2i"),
        ("python mine.py", "mine.py", None, "python mine.py"),
        ("python 'my app.py'", "my app.py", None, "python 'my app.py'"),
    ],
)
def test_the_words_are_those_that_work_where_they_were_typed(paths, own, script, above, expected):
    found = typed.words(shlex.split(own), script, above and shlex.split(above), {}, prefix="/env")
    assert shlex.join(found) == expected


@pytest.mark.parametrize(
    "own, script, expected",
    [
        ("/env/bin/python3 apps/r2i", "apps/r2i", "uv run apps/r2i"),
        ("/env/bin/python3 -m r2i", "/src/r2i/__main__.py", "uv run -m r2i"),
        ("/env/bin/python3 /env/bin/r2i", "/env/bin/r2i", "uv run r2i"),
    ],
)
def test_behind_uv_where_no_process_above_can_be_seen(paths, own, script, expected):
    found = typed.words(shlex.split(own), script, None, {"UV_RUN_RECURSION_DEPTH": "1"}, prefix="/env")
    assert shlex.join(found) == expected


def test_uv_may_be_the_module_of_a_python_alone(monkeypatch):
    monkeypatch.setattr(typed.shutil, "which", lambda name: None)
    assert typed.words(["python", "apps/r2i"], "apps/r2i", ["/x/uv", "run", "apps/r2i"], {})[:3] == [
        "python3",
        "-m",
        "uv",
    ]


@pytest.mark.parametrize(
    "called, folders, expected",
    [
        ("/far/bin/uv", "env own", "python3 -m uv run apps/r2i"),
        ("/far/bin/uv", "env own other", "python3 -m uv run apps/r2i"),
        ("/far/bin/uv", "env other own", "OWN -m uv run apps/r2i"),  # another one has that name there
        ("/far/bin/uv", "env", "OWN -m uv run apps/r2i"),
        (None, "env own", "python3 -m uv run apps/r2i"),
        ("uv", "env own", "uv run apps/r2i"),  # typed in a shell that such a Python had started
    ],
)
def test_uv_typed_as_a_module_is_told_so(paths, tmp_path, called, folders, expected):
    """Also where there is a `uv` on the path."""
    for folder in ("env", "own", "other"):
        (tmp_path / folder / "bin").mkdir(parents=True)
        (tmp_path / folder / "bin" / "python3").touch(0o755)
    own = str(tmp_path / "own" / "bin" / "python3")
    path = os.pathsep.join(str(tmp_path / folder / "bin") for folder in folders.split())
    environment = {"UV_INTERNAL__PARENT_INTERPRETER": own, "UV_RUN_RECURSION_DEPTH": "1", "PATH": path}
    above = called and [called, "run", "apps/r2i"]
    found = typed.words(["env/python3", "apps/r2i"], "apps/r2i", above, environment, str(tmp_path / "env"))
    assert shlex.join(found) == expected.replace("OWN", own)


def test_what_a_caller_passes_was_not_typed():
    assert typed.program("po_dreamer", ["train"]) == "po_dreamer"
    assert typed.again("po_dreamer", ["train"]) == ["-m", "po_dreamer"]


SAY = """
import sys
from wm_run import typed
print(typed.program("nobody", sys.argv[1:]), typed.again("nowhere", sys.argv[1:]))
"""


@pytest.mark.parametrize("start", [["say.py"], ["-m", "say"], ["-X", "dev", "folder"]])
def test_a_started_program_knows_how(tmp_path, start):
    (tmp_path / "folder").mkdir()
    for path in ("say.py", "folder/__main__.py"):
        (tmp_path / path).write_text(SAY)
    env = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    command = [sys.executable, *start, *ARGUMENTS]
    said = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout
    assert said == f"{shlex.join([sys.executable, *start])} {start}\n"


@pytest.mark.parametrize("part", ["solo:build", "solo.agent:build"])
def test_the_module_of_an_app_is_the_first_word_of_where_it_is_built(fakes, part):
    app = fakes.app
    assert App(app.name, "m", "1", app.config, app.folder, {}, part, "gone:environments").module == "solo"


RANKS = """
import os, pathlib, sys
from wm_run import typed
if "RANK" in os.environ:
    pathlib.Path("rank" + os.environ["RANK"]).write_text(" ".join([*sys.argv[1:], typed.program("solo", sys.argv[1:])]))
else:
    from wm_run import launch
    sys.exit(launch.launch(typed.again("solo:build", sys.argv[1:]), sys.argv[1:], 2, pathlib.Path("D"), "so typed"))
"""


def test_the_ranks_of_an_app_in_one_file_start_as_it_was_started(tmp_path):
    """The file's folder is the only place where it can be found, and no module has its name."""
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "my app.py").write_text(RANKS)
    subprocess.run([sys.executable, "place/my app.py", *ARGUMENTS], cwd=tmp_path, timeout=120, check=True)
    assert {(tmp_path / f"rank{i}").read_text() for i in (0, 1)} == {"train --logdir a b so typed"}


def test_a_run_says_what_comes_next_quoted(fakes, monkeypatch, capsys):
    monkeypatch.setenv(typed.PROGRAM, "uv run apps/po_dreamer")
    monkeypatch.setattr("wm_run.dreams.videos", lambda session, step: [])
    main(fakes.app, ["train", "--preset", "tiny", "--steps", "20", "--logdir", "a b"])
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "next: uv run apps/po_dreamer eval 'a b'",
        "  or: uv run apps/po_dreamer dream 'a b'",
    ]
    main(fakes.app, ["--help"])
    assert capsys.readouterr().out.startswith("usage: uv run apps/po_dreamer COMMAND")
    with pytest.raises(SystemExit):
        main(fakes.app, ["eval", "--help"])
    assert capsys.readouterr().out.startswith("usage: uv run apps/po_dreamer eval [-h]")


# ---- names that the locale cannot write

ALONE = """
import pathlib, sys
from wm_run.app import App
from wm_run.cli import main
from wm_run.config import RunConfig
from wm_run.toml import to_toml
name = pathlib.Path(sys.argv[2])
name.mkdir(exist_ok=True)
(name / "config.toml").write_text(to_toml({"task": "l\\xe4uf", "run": {"app": "alone"}}), encoding="utf-8")
print(name, sys.flags.utf8_mode)
main(App("alone", "fake", "1", RunConfig, name, {}, "gone:build", "gone:environments"))
"""


def test_a_run_folder_may_have_any_name_under_any_locale(tmp_path):
    """Started as two programs, the second of them in UTF-8 mode; both show what they can, and speak of what was typed."""
    (tmp_path / "alone.py").write_text(ALONE)
    env = {name: value for name, value in os.environ.items() if not name.startswith("UV")}  # nobody typed `uv run`
    env |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii:backslashreplace"}
    command = [sys.executable, "alone.py", "eval", "läuf", "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    first, second, usage = done.stdout.splitlines()[:3]
    assert (first, second) == (rb"l\udcc3\udca4uf 0", rb"l\xe4uf 1")
    assert usage.startswith(f"usage: {sys.executable} alone.py eval".encode())
    assert rb"(default: 'l\xe4uf')" in b" ".join(done.stdout.split())
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["läuf"]


@pytest.mark.parametrize(
    ("encoding", "expected"), [("ascii", b"l\\xe4uf"), ("latin-1", b"l\xe4uf"), ("utf-8", "läuf".encode())]
)
def test_what_stdout_cannot_write_is_shown_all_the_same(monkeypatch, encoding, expected):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, write_through=True))
    tolerate()
    print("läuf", end="")
    assert raw.getvalue() == expected


def test_a_path_that_is_no_text_is_refused(fakes, capsys):
    with pytest.raises(SystemExit):
        main(fakes.app, ["train", "--preset", "tiny", "--logdir", os.fsdecode(b"runs/\xff")])
    assert capsys.readouterr().err == "fakeapp: --logdir 'runs/\\udcff' is not UTF-8: give a path of whole characters\n"
