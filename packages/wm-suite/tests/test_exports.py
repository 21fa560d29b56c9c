"""Files of scores that others read: what goes out comes back, and what cannot go out is told."""

from __future__ import annotations

import argparse
import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
from wm_suite import SuiteError, export_command, exports, find, group, read
from wm_suite.exports import at_the_end, by_method, danijar, finals, marl_eval, write
from wm_suite.scored import Scored, of_rows, of_runs

CURVE = ((100.0, 1.0), (200.0, 3.0), (300.0, 5.0), (400.0, 7.0))


def row(task: str = "toy:catch", arm: str = "r2i", seed: int = 0, **more: Any) -> dict[str, Any]:
    return {"task": task, "arm": arm, "seed": seed, "curve": [[100, 0.5], [200, None], [300, 1.0]], **more}


def folder(path: Path, task: str, seed: int, lines: list[dict[str, Any]]) -> None:
    """As `train` leaves it."""
    path.mkdir(parents=True)
    (path / "config.toml").write_text(f'task = "{task}"\nseed = {seed}\n[run]\napp = "mine"\n')
    (path / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def exported(*words: str) -> int:
    parser = argparse.ArgumentParser()
    export_command.add_arguments(parser)
    return export_command.run(parser.parse_args(words))


# ---- from rows and from folders


def test_rows_are_runs_and_the_newest_counts():
    found = of_rows(
        [row(trained=[0.0]), row(trained=[1.0, 0.0], won=[1, 0]), row(seed=1, trained=4.0, won=1)], outcome="won"
    )
    assert [(one.seed, one.score, one.outcomes) for one in found] == [(0, 0.5, (1.0, 0.0)), (1, 4.0, (1.0,))]
    assert found[0].curve == ((100.0, 0.5), (300.0, 1.0))  # a point without a number is none
    odd = {**row(trained=1.0), "curve": [[100, math.nan], [200, 2.0]]}
    assert of_rows([odd])[0].curve == ((200.0, 2.0),)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (row(), "no number in 'trained'$"),
        (row(fresh=[1.0]), "no number in 'trained'; it has numbers in fresh"),
        (row(trained=[1.0, None]), "no number in 'trained'"),
        (row(trained="high"), "'trained' that is str and no number"),
    ],
)
def test_a_row_without_its_score_is_a_sentence(found: dict[str, Any], words: str):
    with pytest.raises(SuiteError, match=f"the row of r2i on toy:catch, seed 0, has .*{words}"):
        of_rows([found])


def test_run_folders_are_runs_and_their_last_tenth_is_their_score(tmp_path: Path):
    lines = [{"step": step, "episode/score": step / 100, "episode/won": step > 500} for step in range(100, 1001, 50)]
    for seed in (0, 1):
        folder(tmp_path / str(seed), "smax:3m", seed, lines)
    groups, _ = group([read(one) for one in find([tmp_path])])
    found = of_runs(groups)
    assert [(one.task, one.method, one.seed) for one in found] == [("smax:3m", "mine", 0), ("smax:3m", "mine", 1)]
    assert found[0].final == (9.5, 10.0) and found[0].outcomes == (1.0, 1.0)
    assert found[0].curve[0] == (100.0, 1.0) and found[0].won[0] == (100.0, 0.0)
    assert found[0].score == groups[0].runs[0].final()[0]


# ---- danijar's


@pytest.mark.parametrize("name", ["scores.json", "deep/scores.json.gz"])
def test_danijars_file_comes_back_as_it_went(tmp_path: Path, name: str):
    runs = [Scored("atari100k_james_bond", method, seed, CURVE) for method in ("a", "b") for seed in (0, 3)]
    files, notes = write("danijar", [*runs, Scored("t", "a", 0)], tmp_path / name)
    assert files == [tmp_path / name] and notes == ["a on t, seed 0 has no curve"]
    back = exports.read(files[0])
    assert [(one.task, one.method, one.seed, one.curve) for one in back[:4]] == [
        ("atari_jamesbond", one.method, one.seed, CURVE) for one in runs
    ]
    assert back[0].final == (7.0,) and back[4].curve == () and math.isnan(back[4].score)
    assert danijar(back) == danijar([*runs, Scored("t", "a", 0)])
    assert {file.name for file in files[0].parent.iterdir()} == {files[0].name}  # no half of a file stays


def test_a_file_of_theirs_is_read_as_it_is_and_packs_alike(tmp_path: Path):
    theirs = [{"task": "atari_pong", "method": "dreamerv3", "seed": 0, "xs": [400, 800.0], "ys": [None, -3]}]
    (tmp_path / "t.json.gz").write_bytes(gzip.compress(json.dumps(theirs).encode()))
    found = exports.read(tmp_path / "t.json.gz")
    assert found == [Scored("atari_pong", "dreamerv3", 0, ((800.0, -3.0),), (-3.0,))]
    one, two = (write("danijar", found, tmp_path / name)[0][0].read_bytes() for name in ("a.json.gz", "b.json.gz"))
    assert one == two and one[4:8] == bytes(4)  # no time of day inside


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[{]", "is no JSON"),
        (b"\x1f\x8b\x08\x00half", "is no JSON"),
        (b"3", "is no list of runs"),
        (b'{"Alien": 1}', "Alien of .* has no list of scores"),
        (b'{"Alien": ["x"]}', "a score of Alien in .* is str"),
        (b'[{"task": "t"}]', "run 1 of .* is none .KeyError: 'xs'"),
        (b'[{"task": "t", "method": "m", "seed": 0, "xs": [1, 2], "ys": [1]}]', "run 1 of .* is none"),
        (b'[{"task": "t", "method": "m", "seed": "x", "xs": [], "ys": []}]', "run 1 of .* is none"),
        (b'[{"task": "t", "method": "m", "seed": 0, "xs": [-1], "ys": [1]}]', "run 1 of .* is none"),
        (b"[3]", "run 1 of .* is none"),
    ],
)
def test_what_is_no_score_file_is_a_sentence(tmp_path: Path, content: bytes, words: str):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(SuiteError, match=words):
        exports.read(tmp_path / "x.json")
    with pytest.raises(SuiteError, match="cannot be read"):
        exports.read(tmp_path)


def test_the_table_of_a_score_file_takes_late_points_of_the_seeds_that_have_some():
    late = Scored("t", "m", 0, ((80.0, 1.0), (95.0, 3.0), (99.0, 5.0)))
    early = Scored("t", "m", 1, ((80.0, 9.0),))
    assert at_the_end([late, early, Scored("u", "m", 0, ((10.0, 2.0),)), Scored("v", "m", 0)], 90) == {
        "t": [4.0],
        "u": [2.0],
    }
    assert at_the_end([late, early], 95) == {"t": [4.0]}  # that step is in it


# ---- finals


def test_finals_are_a_list_a_game_and_a_file_a_method(tmp_path: Path):
    runs = [
        Scored("atari100k_up_n_down", "r2i", 1, (), (4.0, 6.0)),
        Scored("atari100k_up_n_down", "r2i", 0, (), (1.0,)),
    ]
    runs += [Scored("toy:catch", "a/b", 0, (), (2.0,)), Scored("toy:catch", "r2i", 0)]
    files, notes = write("finals", runs, tmp_path / "out")
    assert [file.name for file in files] == ["r2i.json", "a_b.json"]
    assert [json.loads(file.read_text()) for file in files] == [{"UpNDown": [1.0, 5.0]}, {"toy:catch": [2.0]}]
    assert notes == ["r2i on toy:catch, seed 0 has no score and is left out"]
    back = exports.read(files[0])
    assert [(one.task, one.method, one.seed, one.score) for one in back] == [
        ("UpNDown", "r2i", 0, 1),
        ("UpNDown", "r2i", 1, 5),
    ]
    assert finals(back, "r2i") == json.loads(files[0].read_text())
    with pytest.raises(SuiteError, match="methods a/b, a_b would share a file"):
        write("finals", [Scored("t", name, 0, (), (1.0,)) for name in ("a/b", "a_b")], tmp_path)


def test_the_26_games_are_spelled_as_papers_print_them():
    import tomllib
    from importlib import resources

    from wm_suite.printed import printed

    lists = tomllib.loads((resources.files("wm_suite") / "data" / "tasks.toml").read_text("utf-8"))
    games = [exports.game(task) for task in lists["atari26"]]
    assert {"BankHeist", "Jamesbond", "KungFuMaster", "MsPacman", "UpNDown", "Qbert"} <= set(games)
    assert all(printed("var_table1").column("STORM")[task] for task in lists["atari26"])
    assert finals([Scored(task, "m", 0, (), (1.0,)) for task in lists["atari26"]], "m").keys() == set(games)


# ---- marl-eval's


def team(task: str = "smax:3m", method: str = "DMAWM", seed: int = 0, end: int = 400) -> Scored:
    curve = tuple((float(step), step / 100) for step in range(50, end + 1, 50))
    return Scored(task, method, seed, curve, (4.0, 2.0), (1.0, 0.0), tuple((step, 0.5) for step, _ in curve))


def test_marl_evals_file_has_the_structure_that_it_documents():
    content, notes = marl_eval([team(method=method, seed=seed) for method in ("DMAWM", "MAPPO") for seed in (3, 1)], 4)
    assert not notes and list(content) == ["smax"] and list(content["smax"]) == ["3m"]
    assert list(content["smax"]["3m"]) == ["dmawm", "mappo"]
    for runs in content["smax"]["3m"].values():
        assert list(runs) == ["run_1", "run_2"]
        for steps in runs.values():
            assert list(steps) == ["step_1", "step_2", "step_3", "step_4", "absolute_metrics"]
            assert [steps[f"step_{n}"]["step_count"] for n in (1, 2, 3, 4)] == [100, 200, 300, 400]
            assert [steps[f"step_{n}"]["return"] for n in (1, 2, 3, 4)] == [[0.75], [1.75], [2.75], [3.75]]
            assert steps["step_1"]["win_rate"] == [0.5]
            assert steps["absolute_metrics"] == {"return": [3.0], "win_rate": [0.5]}


def test_runs_are_numbered_in_the_order_of_their_seeds():
    runs = [Scored("smax:3m", "a", seed, ((10.0, 1.0),), (float(seed),)) for seed in (3, 1, 2)]
    content, _ = marl_eval(runs, 1)
    found = content["smax"]["3m"]["a"]
    assert [found[f"run_{n}"]["absolute_metrics"]["return"] for n in (1, 2, 3)] == [[1.0], [2.0], [3.0]]


def test_marl_eval_gets_points_that_all_runs_of_a_task_have():
    short = Scored("smax:3m", "b", 0, ((250.0, 1.0), (300.0, 1.0)), (1.0,))
    content, notes = marl_eval([team(method="a"), short], 3)
    steps = content["smax"]["3m"]["a"]["run_1"]
    assert [one["step_count"] for name, one in steps.items() if name != "absolute_metrics"] == [300]
    assert "win_rate" not in steps["absolute_metrics"] and not notes  # which one of them has not


def test_what_marl_eval_refuses_is_told():
    _, notes = marl_eval([team(seed=0), team(seed=1), team(method="b")], 2)
    assert notes == ["numbers of seeds differ (2 of DMAWM on smax:3m, 1 of b on smax:3m): marl-eval refuses such files"]
    _, notes = marl_eval([team(), team(task="smax:8m", method="b")], 2)
    assert notes == ["methods differ in their tasks (DMAWM, b): marl-eval refuses such files"]
    _, notes = marl_eval([team(), Scored("smax:3m", "DMAWM", 1)], 2)
    assert notes == ["DMAWM on smax:3m, seed 1 has no curve or no score and is left out"]
    with pytest.raises(SuiteError, match="methods DMAWM, dmawm are not told apart"):
        marl_eval([team(), team(method="dmawm")], 2)
    with pytest.raises(SuiteError, match="no run has a curve and a score"):
        marl_eval([Scored("t", "m", 0)], 2)
    content, _ = marl_eval([team(method="a, b")], 2)  # a comma is refused there
    assert list(content["smax"]["3m"]) == ["a; b"]


# ---- the verb


def test_the_verb_takes_rows_folders_and_files_and_prints_what_it_wrote(tmp_path: Path, capsys: Any):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row(seed=seed, fresh=[seed])) + "\n" for seed in (0, 1)))
    lines = [{"step": step, "episode/score": 1.0} for step in range(0, 1001, 100)]
    folder(tmp_path / "runs" / "x", "toy:catch", 0, lines)
    out = tmp_path / "all.json.gz"
    assert exported(str(rows), str(tmp_path / "runs"), "--score", "fresh", "--out", str(out)) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert [(one.method, one.seed) for one in exports.read(out)] == [("r2i", 0), ("r2i", 1), ("mine", 0)]
    assert exported(str(out), "--to", "finals", "--out", str(tmp_path / "finals")) == 0
    assert json.loads((tmp_path / "finals" / "r2i.json").read_text()) == {
        "toy:catch": [1.0, 1.0]
    }  # of the curves' ends
    assert (
        exported(str(rows), "--score", "fresh", "--to", "marl-eval", "--out", str(tmp_path / "m.json"), "--points", "3")
        == 0
    )
    assert list(json.loads((tmp_path / "m.json").read_text())["toy"]["catch"]["r2i"]) == ["run_1", "run_2"]


def test_mistakes_of_the_verb_are_sentences(tmp_path: Path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(row(trained=[1.0])) + "\n")
    for words, told in (
        ([str(tmp_path / "none.jsonl")], "there is no "),
        ([str(tmp_path / "rows.csv")], "is no rows"),
        ([str(tmp_path / "none.json")], "cannot be read"),
        ([str(tmp_path)], "there is no run in"),
        ([str(rows), "--points", "0"], "0 points"),
        ([str(rows), str(rows)], "two runs of r2i on toy:catch, seed 0"),
        ([str(rows), "--out", str(rows / "below.json")], "cannot be written"),
    ):
        with pytest.raises(SuiteError, match=told):
            exported(*words)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(SuiteError, match="no run to export"):
        exported(str(tmp_path / "empty.jsonl"))
    with pytest.raises(SuiteError, match="no kind of score file 'csv'"):
        write("csv", [team()], tmp_path / "x")


def test_scores_by_method_are_what_aggregates_take():
    runs = of_rows([row(seed=seed, trained=[float(seed)]) for seed in (1, 0)]) + [Scored("u", "r2i", 0)]
    assert by_method(runs) == {"r2i": {"toy:catch": [0.0, 1.0]}}


# ---- folders of other projects


def test_a_folder_of_dreamerv3_is_a_run(tmp_path: Path):
    lines = "".join(json.dumps({"step": step, "episode/score": step / 100}) + "\n" for step in (400, 800, 1000))
    for name, yaml in (
        ("20250101T000000-atari_pong-dreamerv3-3", ""),
        ("mine/one", "batch_size: 16\ntask: 'atari_pong'  # a game\nseed: 4\nagent:\n  task: nothing\n"),
        ("atari_pong/ours/5", ""),
    ):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "scores.jsonl").write_text(lines)
        if yaml:
            (tmp_path / name / "config.yaml").write_text(yaml)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "scores.jsonl").write_text(lines)  # nobody says whose
    runs = {run.seed: run for run in map(read, find([tmp_path]))}
    assert {seed: (run.task, run.app) for seed, run in runs.items()} == {
        3: ("atari_pong", "dreamerv3"),
        4: ("atari_pong", "mine"),
        5: ("atari_pong", "ours"),
    }
    assert runs[3].final() == (10.0, 1)
    groups, _ = group(list(runs.values()))
    assert [one.label for one in groups] == ["dreamerv3", "mine", "ours"]


def test_a_run_of_ours_stays_its_own_and_odd_yaml_is_no_task(tmp_path: Path):
    folder(tmp_path / "a-b-c-7", "toy:catch", 1, [{"step": 1, "episode/score": 1.0}])
    inner = tmp_path / "a-b-c-7" / "rank" / "x-toy-y-2"
    inner.mkdir(parents=True)
    (inner / "scores.jsonl").write_text("")
    assert [read(one).seed for one in find([tmp_path])] == [1]
    odd = tmp_path / "odd"
    odd.mkdir()
    (odd / "scores.jsonl").write_text("")
    for content in (b"\xff\xfe", b"task:\n  - a\n", b"seed: 3\n", b"- task: x\n"):
        (odd / "config.yaml").write_bytes(content)
        assert find([tmp_path]) == [tmp_path / "a-b-c-7"]
    (odd / "config.yaml").write_bytes(b"task: t\nseed: " + b"9" * 5000)
    assert read(odd).seed == 0
