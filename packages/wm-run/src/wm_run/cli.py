"""argv -> presets, size, ablation, fields -> one frozen config -> a command. Parsing imports no torch.

Precedence: the config's defaults < preset < --size < ablation < the command line. (A preset may name a `size` of its
own; that one comes before the preset's other numbers.) A logdir that holds a run replaces all of it but the command line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wm_core.errors import UserError

from wm_run import agents, encoding, evaluation, places, published, typed
from wm_run.app import App, Origin
from wm_run.config import RunConfig, check, check_together, resumable
from wm_run.configs import read_run, resolve
from wm_run.manifest import kept_config
from wm_run.memory import exhausted
from wm_run.options import OPTIONS, Info, Plot, Publish, Train
from wm_run.reading import listed, read, say_true, unknown
from wm_run.stop import say
from wm_run.task_options import flat
from wm_run.trust import TRUST, on_a_strangers_word, unsaid

ALIASES = {"--track": "--log"}
ACTING = ("eval", "dream", "play", "export")  # of a run as it is
FUNCTIONS = {  # of each command, imported when it is asked for; torch comes with most
    "train": "wm_run.commands:train",
    "eval": "wm_run.commands:evaluate",
    "info": "wm_run.info:info",
    "dream": "wm_run.dreams:dream",
    "play": "wm_run.play:play",
    "plot": "wm_run.plot:plot",
    "export": "wm_run.export:export",
    "publish": "wm_run.publish:publish",
}


@dataclass(frozen=True)
class Command:
    """What was asked, resolved."""

    name: str
    options: Any
    config: RunConfig
    saved: RunConfig | None  # the config of the run in the logdir, where there is one
    origin: Origin
    argv: tuple[str, ...] = ()  # the words themselves
    program: str = ""  # what this user typed before them, quoted
    given: tuple[str, ...] = ()  # fields that are not what they are without the words
    strange: bool = False  # the task names code, on the word of a file alone: see `wm_run.trust`

    def changes(self) -> list[str]:
        """What differs from the saved config, as "field: before -> now"."""
        if self.saved is None:
            return []
        old, new = flat(dataclasses.asdict(self.saved)), flat(dataclasses.asdict(self.config))
        names = [name for name in old | new if old.get(name) != new.get(name)]
        return [f"{name}: {old.get(name)} -> {new.get(name)}" for name in names]


def main(app: App, argv: Sequence[str] | None = None) -> None:
    """The command line of an app. A user's mistake is one sentence on stderr and exit code 2."""
    argv = sys.argv[1:] if argv is None else list(argv)
    encoding.open_streams()
    encoding.ensure(argv, typed.program(app.name, argv))
    encoding.tolerate()
    try:
        code = _main(app, argv)
    except KeyboardInterrupt:
        say(f"{app.name}: interrupted")
        code = 130
    except BrokenPipeError:  # the reader of our output has seen enough; stdout is pointed elsewhere for the last flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except Exception as error:
        sentence = sentence_of(app, error, (argv or [""])[0])
        if sentence is None:
            raise
        say(f"{app.name}: {' '.join(sentence.split())}")
        code = 2
    if code:
        raise SystemExit(code)


def _main(app: App, argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(overview(app, typed.program(app.name, argv)))
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"{app.name} {app.version}")
        return 0
    command = parse(app, argv)
    if getattr(command.options, "trust", False):
        os.environ[TRUST] = "1"  # workers and other processes of the run inherit it
    module, _, function = FUNCTIONS[command.name].partition(":")
    with on_a_strangers_word(command.strange):
        return int(getattr(importlib.import_module(module), function)(app, command) or 0)


def overview(app: App, program: str) -> str:
    """What `--help` says without a command."""
    lines = [f"usage: {program} COMMAND [OPTIONS]   ({program} COMMAND --help)", ""]
    lines += [f"  {name:6} {(kind.__doc__ or '').strip()}" for name, kind in OPTIONS.items()]
    lines += ["", f"presets:   {listed(app.files('presets'))}", f"ablations: {listed(app.files('ablations'))}"]
    return "\n".join([*lines, f"sizes:     {listed(app.sizes)}"])


def mistaken(app: App, error: Exception) -> bool:
    """Whether an error's message is a sentence for the user."""
    return getattr(error, "user_error", False) or any(kind.__name__ in app.mistakes for kind in type(error).__mro__)


def sentence_of(app: App, error: Exception, command: str = "train") -> str | None:
    """What to tell the user, or None for a fault of ours, which keeps its traceback."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if mistaken(app, error):
        return str(error)
    trains = OPTIONS.get(command, Train) in (Train, Info)
    if sentence := exhausted(error, trains):
        return sentence
    if isinstance(error, OSError) and (sentence := places.sentence(error, command)):
        return sentence
    if "OutOfMemoryError" in names and "torch" in type(error).__module__:
        smaller = (
            "choose a smaller --size, --batch or --length" if trains else "give --device cpu, or end what else is on it"
        )
        return f"the GPU has too little memory for this run: {smaller}"
    if isinstance(error, ModuleNotFoundError) and error.name in ("wm_suite", "matplotlib"):
        return f"the package {error.name} is missing: install wm-run[plot]"
    if isinstance(error, ModuleNotFoundError) and error.name in ("tyro", "rich", "tensorboard", "imageio", "av", "PIL"):
        return f"the package {error.name} is missing: install wm-run"
    return None


# ---- argv -> Command


def parse(app: App, argv: Sequence[str]) -> Command:
    """Resolve a command line; raises UserError in one sentence. `--help` prints and exits.

    Torch is imported only where no preset was named and a GPU would change which one runs.
    """
    name = argv[0]
    if name not in OPTIONS:
        raise UserError(unknown("command", name, OPTIONS))
    rest = say_true(app, [_alias(word) for word in argv[1:]])
    asked = [arg for arg in rest if arg not in ("-h", "--help")]
    default, program = app.config(), typed.program(app.name, argv)
    try:
        options, given = read(app, name, default, asked, program)
    except UserError:
        if asked == rest:
            raise
        read(app, name, default, rest, program)  # prints the help and exits
    options = _at_home(options)
    if asked != rest and not isinstance(options, Train):
        _help(app, name, options, given, rest, program)
    if isinstance(options, Plot):
        if not options.logdirs:
            raise UserError("`plot` needs the LOGDIRS of runs, or a folder that holds some")
        return Command(name, options, default, None, Origin(), tuple(argv), program)
    return settled(
        app, name, options, lambda base: read(app, name, base, rest, program)[1], argv=tuple(argv), program=program
    )


def settled(
    app: App,
    name: str,
    options: Any,
    change: Callable[[RunConfig], RunConfig],
    *,
    argv: tuple[str, ...] = (),
    program: str = "",
) -> Command:
    """A command on runs, from its options and what `change` makes of the config of the run that is there, or of a preset.
    Raises UserError in one sentence."""
    options = _resolved(options)
    saved, base, origin = _base(app, options)
    config = change(base)
    if options.__class__ in (Train, Info) and saved is None and not origin.preset:
        wish = _automatic(app, config)
        if wish:
            origin = wish
            base = resolve(app, wish.preset, options.size, options.ablation)
            config = change(base)
            origin = dataclasses.replace(wish, size=options.size, ablation=options.ablation)
    config = _at_home(config)
    if name in ACTING:
        # before numbers that nobody reads are held against each other
        evaluation.changed(saved, config, name, app.acting)
    check(config)
    strange = saved is not None and unsaid(app.environments, saved, change)
    given = tuple(
        one.name for one in dataclasses.fields(config) if getattr(config, one.name) != getattr(base, one.name)
    )
    command = Command(name, options, config, saved, origin, argv, program, given, strange)
    if name == "train" and saved is not None:
        free = resumable(app.config)
        fixed = [c for c in command.changes() if c.split(":")[0] not in free]
        if fixed:
            raise UserError(
                f"a run keeps what it was started with, but {fixed[0].replace(' -> ', ' became ')}: give another --logdir, "
                f"or leave it out (free to change: {', '.join(free)})"
            )
    check_together(config)
    if name == "train" and saved is None and config.init_from:
        agents.found(config.init_from)  # before there is a run folder
    return command


def _help(app: App, name: str, options: Any, given: RunConfig, words: list[str], program: str) -> None:
    """Print the help of a command on runs, with the numbers of the run that is named if it is there; exits."""
    base = given
    if not isinstance(options, Plot):
        with contextlib.suppress(UserError):
            base = _base(app, options)[1]
    read(app, name, base, words, program)


def _resolved(options: Any) -> Any:
    """Options whose LOGDIR is a folder, also where an agent was called by another name. A run begins in a folder alone."""
    if not agents.named(options.logdir):
        return options
    if isinstance(options, Train):
        raise UserError(
            f"--logdir is the folder of a run, which {options.logdir} is not: for a run that begins with its weights give "
            f"--init_from {options.logdir}"
        )
    place = agents.found if isinstance(options, Publish) else agents.copied
    return dataclasses.replace(options, logdir=str(place(options.logdir)))


def _base(app: App, options: Any) -> tuple[RunConfig | None, RunConfig, Origin]:
    """The saved config if there is a run, the config that the command line then changes, and where it came from."""
    logdir = Path(options.logdir) if options.logdir else None
    if logdir is not None and published.there(logdir):
        if isinstance(options, Train):
            raise UserError(
                f"{logdir} holds a published agent, with which no run goes on: give another --logdir, and its weights with "
                f"--init_from {logdir}"
            )
        published.read(logdir)
    if logdir is not None and ((logdir / "config.toml").is_file() or kept_config(logdir)):
        saved, origin = read_run(app, logdir)
        for name in ("preset", "size", "ablation"):
            asked, had = getattr(options, name, ""), getattr(origin, name)
            if asked and asked != had:
                raise UserError(
                    f"the run in {logdir} was started with {name} {had or 'none'!r}, not {asked!r}: give another --logdir"
                )
        return saved, saved, origin
    if not isinstance(options, Train):
        raise UserError(f"there is no run in {options.logdir} (no config.toml): name the folder that `train` printed")
    base = resolve(app, options.preset, options.size, options.ablation)
    return None, base, Origin(options.preset, options.size, options.ablation)


def _automatic(app: App, config: RunConfig) -> Origin | None:
    """The preset for a machine when the user named none, and the sentence about it."""
    presets = app.files("presets")
    if not {"cpu", app.paper} & set(presets):
        return None
    if config.device != "cpu":
        import torch

        if torch.cuda.is_available():
            return Origin(app.paper, note=f"no preset named: this machine has a GPU, so `{app.paper}` runs")
    why = "no preset named and no GPU in use"
    return Origin("cpu", note=f"{why}: the preset `cpu` runs instead of the full setting `--preset {app.paper}`")


def _alias(word: str) -> str:
    """The name of an option that goes by another one elsewhere.

    >>> _alias("--track"), _alias("--track=wandb"), _alias("--tracks")
    ('--log', '--log=wandb', '--tracks')
    """
    name, equals, value = word.partition("=")
    return f"{ALIASES.get(name, name)}{equals}{value}"


PLACES = ("logdir", "logdirs", "out", "export", "init_from", "data", "to", "rows")


def _at_home(values: Any) -> Any:
    """Options or a config with the ~ of its paths made the home folder, which a shell leaves as it is in --logdir=~/runs/x.

    >>> import os
    >>> _at_home(Train(logdir="~/runs")).logdir == os.path.expanduser("~/runs")
    True
    """
    found = {name: getattr(values, name) for name in PLACES if not isinstance(getattr(values, name, 0), int)}
    moved = {
        name: os.path.expanduser(value) if isinstance(value, str) else tuple(map(os.path.expanduser, value))
        for name, value in found.items()
    }
    for name, value in moved.items():
        for path in (value,) if isinstance(value, str) else value:
            encoding.check_path(name, path)
    return dataclasses.replace(values, **moved)
