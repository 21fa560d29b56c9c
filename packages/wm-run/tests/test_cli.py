"""The command line: what wins over what, and one sentence for every mistake."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from wm_core.errors import UserError
from wm_run import cli, commands, dreams, evaluation
from wm_run.bounds import Count
from wm_run.cli import main, parse
from wm_run.config import TRAINING, Resumable, RunConfig, marked, now, resumable
from wm_run.configs import resolve


def config_of(fakes, line: str) -> RunConfig:
    return parse(fakes.app, line.split()).config


# ---- precedence


def test_each_source_wins_over_the_one_before(fakes):
    """lr and width along defaults < preset's own size < preset < --size < ablation < command line."""
    assert (config_of(fakes, "train --preset tiny").lr, config_of(fakes, "train --preset tiny").width) == (1e-3, 2)
    preset = config_of(fakes, "train --preset atari100k")
    assert (preset.lr, preset.width) == (0.5, 4)  # its own lr, the width of the size it names
    size = config_of(fakes, "train --preset atari100k --size small")
    assert (size.lr, size.width) == (0.25, 4)
    ablation = config_of(fakes, "train --preset atari100k --size large --ablation narrow")
    assert (ablation.lr, ablation.width) == (1.0, 1)
    field = config_of(fakes, "train --preset atari100k --size large --ablation narrow --width 7")
    assert (field.lr, field.width) == (1.0, 7)


def test_the_order_of_options_does_not_matter(fakes):
    assert config_of(fakes, "train --width 7 --ablation narrow --preset tiny") == config_of(
        fakes, "train --preset=tiny --width=7 --ablation=narrow"
    )


def test_every_kind_of_field_is_read(fakes):
    line = "train --preset tiny --train_ratio 3 --tensorboard True --branches 4 5 6 --device cpu --task blind"
    config = config_of(fakes, line)
    assert (config.train_ratio, config.tensorboard, config.branches) == (3.0, True, (4, 5, 6))
    assert (config.device, config.task) == ("cpu", "blind")


@pytest.mark.parametrize(
    "words, value",
    [
        ("--tensorboard", True),
        ("--tensorboard False", False),
        ("--tensorboard=False", False),
        ("--tensorboard False --tensorboard", True),
        ("--tensorboard False --tensorboard --batch 3", True),
    ],
)
def test_a_field_that_is_true_or_false_may_stand_bare(fakes, words, value):
    config = config_of(fakes, f"train --preset tiny {words}")
    assert config.tensorboard is value and config.batch == (3 if "batch" in words else resolve(fakes.app, "tiny").batch)


def test_a_bare_field_of_two_words_is_read_either_way(fakes):
    @dataclasses.dataclass(frozen=True)
    class Config(fakes.app.config):
        two_words: bool = False

    app = dataclasses.replace(fakes.app, config=Config)
    for word in ("--two_words", "--two-words"):
        assert parse(app, ["train", "--preset", "tiny", word]).config.two_words
    assert not parse(app, ["train", "--preset", "tiny"]).config.two_words


def test_paths_may_begin_at_home(fakes, monkeypatch):
    monkeypatch.setenv("HOME", "/there")
    command = parse(fakes.app, ["train", "--preset", "tiny", "--logdir=~/x", "--init-from=~/y"])
    assert (command.options.logdir, command.config.init_from) == ("/there/x", "/there/y")
    options = parse(fakes.app, ["plot", "~/x", "a~b", "--out=~/z"]).options
    assert (options.logdirs, options.out, options.export) == (("/there/x", "a~b"), "/there/z", "")


@pytest.mark.parametrize("command", ["eval", "dream", "play", "export", "publish"])
def test_no_command_suggests_a_field_that_it_refuses(fakes, command):
    """A letter is too many in every field that is for training; what is suggested instead is read."""
    refused = {f"--{name.replace('_', '-')}" for name in marked(fakes.app.config, TRAINING)}
    for name in refused:
        with pytest.raises(UserError) as error:
            parse(fakes.app, [command, "somewhere", f"{name}x", "3"])
        said = str(error.value)
        assert f"there is no option '{name}x'" in said and not refused & set(re.findall(r"'(--[a-z-]+)'", said))
    with pytest.raises(UserError, match=r"did you mean '--batch'\?"):
        parse(fakes.app, ["train", "--preset", "tiny", "--batc", "3"])


@pytest.mark.parametrize(
    "command, way_out",
    [("eval", "give --episodes"), ("play", "give --episodes"), ("dream", "leave it out"), ("export", "leave it out")],
)
def test_instead_of_a_field_a_command_names_options_that_it_has(command, way_out):
    with pytest.raises(UserError, match=way_out):
        evaluation.changed(RunConfig(), RunConfig(eval_episodes=7), command)


@pytest.mark.parametrize("error", [MemoryError("no room"), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_memory_that_is_short_names_options_of_the_command_alone(fakes, error):
    assert "--batch" in str(cli.sentence_of(fakes.app, error, "train"))
    assert "--" not in str(cli.sentence_of(fakes.app, error, "eval"))


def test_a_preset_may_hold_lists_and_whole_numbers_for_floats(fakes):
    (fakes.app.folder / "presets/list.toml").write_text("branches = [7]\nlr = 2\n")
    config = resolve(fakes.app, "list")
    assert config.branches == (7,) and config.lr == 2.0 and type(config.lr) is float


def test_without_a_preset_a_machine_without_gpu_runs_cpu(fakes, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    command = parse(fakes.app, ["train", "--seed", "4"])
    assert (command.config.width, command.config.seed, command.origin.preset) == (3, 4, "cpu")
    assert "--preset atari100k" in command.origin.note


def test_without_a_preset_a_machine_with_gpu_runs_the_papers(fakes, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    command = parse(fakes.app, ["train", "--size", "large"])
    assert (command.config.width, command.origin.preset) == (8, "atari100k")
    assert parse(fakes.app, ["train", "--device", "cpu"]).origin.preset == "cpu"


def test_a_named_preset_says_nothing(fakes):
    assert parse(fakes.app, ["train", "--preset", "tiny"]).origin.note == ""


# ---- mistakes


def refused(fakes, capsys, line: str) -> str:
    """The sentence of a mistake."""
    with pytest.raises(SystemExit) as stop:
        main(fakes.app, line.split())
    out, err = capsys.readouterr()
    assert stop.value.code == 2
    assert out == ""
    assert err.count("\n") == 1 and err.startswith("fakeapp: ") and "Traceback" not in err
    return err


@pytest.mark.parametrize(
    "line, words",
    [
        ("trian", "no command 'trian'; did you mean 'train'"),
        ("train --preset tinny", "no preset 'tinny'; did you mean 'tiny'"),
        ("train --preset tiny --ablation narow", "no ablation 'narow'; did you mean 'narrow'"),
        ("train --preset tiny --size lrage", "no size 'lrage'; did you mean 'large'"),
        ("train --preset tiny --bacth 3", "no option '--bacth'; did you mean '--batch'"),
        ("train --preset tiny --xyzzy 3", "no option '--xyzzy'"),
        ("train --preset tiny --batch many", "--batch takes a whole number, not 'many'"),
        ("train --preset tiny --batch 2.5", "--batch takes a whole number, not '2.5'"),
        ("train --preset tiny --lr=fast", "--lr takes a number, not 'fast'"),
        ("train --preset tiny --tensorboard maybe", "--tensorboard takes True or False, not 'maybe'"),
        ("train --preset tiny --device tpu", "--device takes one of auto, cpu, cuda, not 'tpu'"),
        ("train --preset tiny --branches 1 x", "--branches takes a list (a whole number), not '1 x'"),
        ("train --preset tiny --batch", "--batch needs a value"),
        ("train --preset tiny --batch 0", "batch must be at least 1, not 0"),
        ("train --preset tiny --train_ratio -1", "train_ratio must be at least 0, not -1"),
        ("train --preset tiny --length 1", "length must be at least 2"),
        ("train --preset tiny --seed 99999999999999999999", "seed must lie in [0, 2**62)"),
        ("train --preset tiny stray", "'stray' is not an option"),
        ("train --preset odd", "preset 'odd': there is no field 'bacth'; did you mean 'batch'"),
        ("train --preset wrong", "preset 'wrong': batch takes a whole number, not 'many'"),
        ("train --preset tiny --task nowhere", "there is no task 'nowhere' at all"),
        ("info --preset tiny --task nowhere", "there is no task 'nowhere' at all"),
        ("eval", "`eval` needs the LOGDIR of a run"),
        ("eval nowhere", "no run in nowhere"),
        ("dream nowhere --observed some", "--observed takes a whole number"),
        ("eval nowhere --preset tiny", "takes --preset from the run"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(fakes, capsys, line, words):
    assert words in refused(fakes, capsys, line)
    assert not list(Path().glob("runs"))


def test_a_gpu_that_is_absent(fakes, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "torch sees no GPU" in refused(fakes, capsys, "train --preset tiny --device cuda")


@pytest.mark.parametrize(
    "command, way_out",
    [("train", "choose another --logdir"), ("dream", "make the folder writable"), ("plot", "another --out")],
)
def test_a_place_where_nothing_can_be_written(fakes, capsys, monkeypatch, command, way_out):
    def place(number: int):
        raise OSError(number, os.strerror(number), "D/x")

    numbers = iter([errno.EROFS, errno.EACCES, errno.ENOTDIR])
    monkeypatch.setattr(cli, "_main", lambda app, argv: place(next(numbers)))
    for reason in ("Read-only file system", "Permission denied", "Not a directory"):
        said = refused(fakes, capsys, command)
        assert f"cannot write D/x ({reason})" in said and way_out in said


def test_a_folder_that_cannot_be_made_is_the_users_and_a_missing_file_ours(fakes, capsys, monkeypatch):
    monkeypatch.setattr(cli, "_main", lambda app, argv: Path("/proc/nowhere/D").mkdir(parents=True))
    assert "cannot write /proc/nowhere" in refused(fakes, capsys, "train")
    monkeypatch.setattr(cli, "_main", lambda app, argv: Path("/proc/nowhere/D").read_text())
    with pytest.raises(FileNotFoundError):
        main(fakes.app, ["train"])


def test_a_preset_that_is_not_toml(fakes, capsys):
    (fakes.app.folder / "presets/broken.toml").write_text("batch =")
    assert "is not TOML" in refused(fakes, capsys, "train --preset broken")
    (fakes.app.folder / "presets/broken.toml").write_text("batch = 2", encoding="utf-16")
    assert "is not UTF-8, as TOML has to be" in refused(fakes, capsys, "train --preset broken")


def test_a_preset_that_an_editor_of_windows_saved(fakes):
    text = "\N{ZERO WIDTH NO-BREAK SPACE}batch = 2\r\n"
    (fakes.app.folder / "presets/theirs.toml").write_text(text, encoding="utf-8", newline="")
    assert cli.parse(fakes.app, ["train", "--preset", "theirs"]).config.batch == 2


def test_a_space_that_the_encoder_cannot_read(fakes, capsys, monkeypatch):
    from wm_core.observations import describe

    def build(config, space, action_spec):
        space.spaces["odd"] = type("Graph", (), {"shape": None})()
        return describe(space)

    app = cli.dataclasses.replace(fakes.app, build=build, environments=lambda c, n: _with_own_space(fakes.envs(n)))
    fakes.app = app
    assert "the encoder cannot read observation 'odd'" in refused(fakes, capsys, "train --preset tiny --logdir D")
    assert not Path("D").exists()


def _with_own_space(envs):
    envs.observation_space = type(envs.observation_space)(spaces={})
    return envs


def test_a_missing_package_of_the_command_line(fakes, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tyro", None)
    assert "the package tyro is missing: install wm-run" in refused(fakes, capsys, "train --preset tiny")


def test_a_full_disk_while_saving_is_told_and_the_run_goes_on_later(fakes, capsys, monkeypatch):
    from wm_run import checkpoint

    def full(path, state):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(dreams, "videos", lambda session, step: [])
    line = "train --preset tiny --logdir D --steps 20"
    with monkeypatch.context() as context:
        context.setattr(checkpoint, "_state_file", full)
        with pytest.raises(SystemExit) as stop:
            main(fakes.app, line.split())
    last = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2 and "No space left" in last and "free some disk space" in last
    main(fakes.app, line.split())
    assert checkpoint.latest("D") is not None


def test_a_full_disk_while_logging(fakes, capsys, monkeypatch):
    def full(app, command):
        raise OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl")

    monkeypatch.setattr(commands, "train", full)
    assert "the disk is full (metrics.jsonl)" in refused(fakes, capsys, "train --preset tiny")


def test_our_own_faults_keep_their_traceback(fakes, monkeypatch):
    def fault(app, command):
        raise ValueError("a fault of ours")

    monkeypatch.setattr(commands, "train", fault)
    with pytest.raises(ValueError, match="a fault of ours"):
        main(fakes.app, ["train", "--preset", "tiny"])


# ---- the run folder


@pytest.fixture
def run(fakes, monkeypatch) -> Path:
    """A run of the fake app."""
    monkeypatch.setattr(dreams, "videos", lambda session, step: [])
    main(fakes.app, ["train", "--preset", "tiny", "--width", "5", "--steps", "40", "--logdir", "D"])
    return Path("D")


def test_the_config_of_a_run_is_the_default_of_resuming_it(fakes, run):
    command = parse(fakes.app, ["train", "--logdir", "D", "--steps", "80"])
    assert (command.config.width, command.config.steps, command.origin.preset) == (5, 80, "tiny")
    assert command.changes() == ["steps: 40 -> 80"]


def test_the_same_command_resumes(fakes, run):
    assert (
        parse(fakes.app, ["train", "--preset", "tiny", "--width", "5", "--steps", "40", "--logdir", "D"]).changes()
        == []
    )


@pytest.mark.parametrize("line, width", [("width = 3\n", 3), ("", 2)])
def test_a_field_that_a_saved_config_lacks_is_what_it_was_then(fakes, run, line, width):
    """`width` as if it were new in this version, 9 in new runs, and 2 for a run from before there was one."""

    @dataclasses.dataclass(frozen=True)
    class Config(fakes.app.config):
        width: int = now(9, was=2)

    app = dataclasses.replace(fakes.app, config=Config)
    kept = [one for one in (run / "config.toml").read_text().splitlines() if not one.startswith("width")]
    (run / "config.toml").write_text("\n".join([line, *kept]))
    assert cli.read_run(app, run)[0].width == width and Config().width == 9
    assert parse(app, ["eval", "D"]).config.width == width


def test_what_may_change_is_shown(fakes, run, capsys):
    main(fakes.app, ["train", "--logdir", "D", "--steps", "60", "--save-every", "10"])
    assert "resuming D at step 40; steps: 40 -> 60; save_every: 100 -> 10" in capsys.readouterr().err
    assert parse(fakes.app, ["train", "--logdir", "D"]).config.save_every == 10


@pytest.mark.parametrize("change", ["--width 6", "--batch 3", "--seed 1", "--task blind", "--train-ratio 1"])
def test_what_may_not_change_is_refused(fakes, run, capsys, change):
    name = change.split()[0].removeprefix("--").replace("-", "_")
    before = (run / "config.toml").read_text()
    capsys.readouterr()
    assert f"{name}: " in refused(fakes, capsys, f"train --logdir D {change}")
    assert (run / "config.toml").read_text() == before


@pytest.mark.parametrize("choice", ["--preset cpu", "--ablation narrow", "--size small"])
def test_another_preset_size_or_ablation_is_refused(fakes, run, capsys, choice):
    capsys.readouterr()
    assert "the run in D was started with" in refused(fakes, capsys, f"train --logdir D {choice}")


@pytest.mark.parametrize("command", ["train --logdir D", "eval D", "dream D"])
def test_a_run_of_another_app_is_refused(fakes, run, capsys, command):
    fakes.app = cli.dataclasses.replace(fakes.app, name="other")
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(fakes.app, command.split())
    assert stop.value.code == 2
    said = (
        "other: D holds a run of 'fakeapp', not of 'other': use that app, wm-app-fakeapp, which is not installed here\n"
    )
    assert capsys.readouterr().err == said


def test_a_width_is_that_of_the_run(fakes, run, capsys):
    capsys.readouterr()
    assert "`eval` takes --width from the run in LOGDIR" in refused(fakes, capsys, "eval D --width 6")
    assert "--batch is for training" in refused(fakes, capsys, "play D --batch 0")  # nor trained with


def test_what_a_resume_may_change_is_what_it_was_when_it_was_a_list():
    """In this order, for config.toml holds it."""
    words = """steps device capture threads workers timeout attempts restore exclusive replay_bytes log_every save_every keep
        milestone_every data held_out_every eval_every eval_episodes eval_envs final_episodes video_every final_video
        tensorboard log"""
    assert resumable(RunConfig) == tuple(words.split())


def test_a_method_says_of_its_own_fields_what_a_resume_may_change(fakes, run, capsys):
    @dataclasses.dataclass(frozen=True)
    class Config(fakes.app.config):
        width: Resumable[Count] = 2  # at 5 in the run; a network's width may not really change
        lr: Resumable[float] | None = 1e-3

    fakes.app = dataclasses.replace(fakes.app, config=Config)
    changes = parse(fakes.app, ["train", "--logdir", "D", "--lr", "0.5", "--width", "7"]).changes()
    assert changes == ["width: 5 -> 7", "lr: 0.001 -> 0.5"]
    capsys.readouterr()
    assert "batch: 2 became 3" in refused(fakes, capsys, "train --logdir D --batch 3")
    assert "width must be at least 1" in refused(fakes, capsys, "train --logdir D --width 0")


# ---- help, and what it costs


def test_help_shows_the_presets_numbers_and_every_field(fakes, capsys):
    with pytest.raises(SystemExit) as stop:
        main(fakes.app, ["train", "--preset", "atari100k", "--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0
    for name in ("--preset", "--ablation", "--task", "--size", "--seed", "--logdir", "--steps", "--device", "--width"):
        assert name in out
    assert "0.5" in out and "Rows of a replay batch." in out


@pytest.mark.parametrize("line", ["plot --help", "plot -h", "eval -h", "eval nowhere --help", "dream --help nowhere"])
def test_help_needs_no_run(fakes, capsys, line):
    with pytest.raises(SystemExit) as stop:
        main(fakes.app, line.split())
    assert stop.value.code == 0 and f"usage: fakeapp {line.split()[0]}" in capsys.readouterr().out


def test_help_on_a_run_shows_its_numbers(fakes, run, capsys):
    with pytest.raises(SystemExit):
        main(fakes.app, ["eval", "D", "--help"])
    assert "(default: fake)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("command", ["eval", "dream", "play"])
def test_help_where_nothing_is_learned_leaves_out_what_only_training_reads(fakes, capsys, command):
    app = cli.dataclasses.replace(fakes.app, acting=("branches",))
    with pytest.raises(SystemExit):
        main(app, [command, "--help"])
    shown = set(re.findall(r"^\W*--([\w-]+)", capsys.readouterr().out, re.MULTILINE))
    fields = {name.replace("_", "-") for name in fakes.config.__dataclass_fields__}
    assert shown >= {"task", "seed", "device", "precision", "threads", "workers", "branches"}
    assert not shown & {"lr", "width", "steps", "batch", "length", "train-ratio", "replay-bytes", "log-every", "log"}
    assert len(shown & fields) < len(fields) / 2


def test_an_app_may_name_no_field_that_it_lacks(fakes):
    with pytest.raises(TypeError, match="gone"):
        cli.dataclasses.replace(fakes.app, acting=("gone",))


def test_help_without_a_command(fakes, capsys):
    main(fakes.app, ["--help"])
    out = capsys.readouterr().out
    assert all(name in out for name in ("train", "eval", "dream", "info", "atari100k, cpu, odd, tiny", "narrow"))
    main(fakes.app, ["--version"])
    assert capsys.readouterr().out == "fakeapp 1.2.3\n"


def test_an_app_may_not_name_a_field_like_an_option(fakes):
    clash = cli.dataclasses.make_dataclass("Clash", [("mode", str, "x")], bases=(RunConfig,), frozen=True)
    with pytest.raises(TypeError, match="mode"):
        cli.dataclasses.replace(fakes.app, config=clash)


def test_parsing_imports_no_torch(fakes):
    code = """
import sys, json, pathlib
from wm_run.app import App
from wm_run.cli import main, parse
from wm_run.config import RunConfig
app = App("a", "a", "1", RunConfig, pathlib.Path(sys.argv[1]), {}, "gone:build", "gone:environments")
for line in ("train --preset nothing", "train --batch x", "train --bacth 3", "train --help", "eval"):
    try: main(app, line.split())
    except SystemExit as stop: pass
(pathlib.Path(sys.argv[1]) / "presets/plain.toml").write_text('task = "x"')
parse(app, ["train", "--preset", "plain"])
print(json.dumps([name for name in ("torch", "gymnasium", "env_adapters") if name in sys.modules]))
"""
    result = subprocess.run(
        [sys.executable, "-c", code, str(fakes.app.folder)], capture_output=True, text=True, check=True
    )
    assert json.loads(result.stdout.splitlines()[-1]) == []
    assert result.stderr.count("\n") == 4


def test_what_a_prompt_gave_last_is_no_matter_to_the_command_line():
    """tyro hashes it when it is imported, and this has no hash."""
    code = """
import builtins

builtins._ = ([0], 1)
from wm_run.reading import unprompted

with unprompted():
    import tyro
assert builtins._ == ([0], 1)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
