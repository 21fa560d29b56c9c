"""argv -> presets, size, ablation, fields -> one frozen config -> a command. Parsing imports no torch.

Precedence: the config's defaults < preset < --size < ablation < the command line. (A preset may name a `size` of its
own; that one comes before the preset's other numbers.) A logdir that holds a run replaces all of it but the command line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import importlib
import os
import sys
import tomllib
import traceback
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wm_core.errors import UserError

from wm_run import encoding, typed
from wm_run.config import RESUMABLE, RunConfig, check, unsaid
from wm_run.durable import lost
from wm_run.evaluation import CHANCE, MACHINE
from wm_run.manifest import kept_config
from wm_run.options import OPTIONS, Info, Plot, Train
from wm_run.reading import describe, listed, read, say_true, unknown
from wm_run.tasks import Tasks

if TYPE_CHECKING:
    from wm_run.loading import Loaded

Part = str | Callable[..., Any]  # a function, or "module:function", imported when it is needed


@dataclass(frozen=True)
class App:
    """A method with everything the commands need.

    config: a frozen subclass of RunConfig, importable without torch. folder holds presets/*.toml and ablations/*.toml.
    sizes: field overrides by name. build(config, observation_space, action_spec) -> Agent, with device and precision
    of the config resolved. environments(config, n) -> n environments (wm_run.loop.Environments).
    decode_action(space, vector (A,)) -> native action. estimate(config, numbers) -> entries to add to what `info`
    measured. fresh(config, n): environments that a run does not learn from, where they are not made as those it does.
    mistakes: names of foreign exception classes whose message is a sentence for the user.
    """

    name: str
    method: str
    version: str
    config: type[RunConfig]
    folder: Path
    sizes: Mapping[str, Mapping[str, object]]
    build: Part
    environments: Part
    decode_action: Part | None = None
    estimate: Part | None = None
    paper: str = "atari100k"  # the preset that a machine with a GPU runs when none is named
    mistakes: tuple[str, ...] = ("TaskError",)
    fresh: Part | None = None
    remembers: bool = False  # what the agent knows outlives episodes: an evaluation begins with training's
    acting: tuple[str, ...] = ()  # fields of the method that count where nothing is learned, as `eval --help` shows

    def __post_init__(self) -> None:
        taken = {f.name for kind in OPTIONS.values() for f in dataclasses.fields(kind)}
        fields = {f.name for f in dataclasses.fields(self.config)}
        if clash := taken & fields:
            raise TypeError(f"{self.config.__name__} has fields that are options of the commands: {sorted(clash)}")
        if odd := set(self.acting) - fields:
            raise TypeError(f"{self.config.__name__} has no fields {sorted(odd)}, which `acting` names")

    @classmethod
    def of(
        cls,
        name: str,
        config: type[RunConfig],
        *,
        sizes: Mapping[str, Mapping[str, object]] | None = None,
        task_options: tuple[str, ...] = (),
        **rest: Any,
    ) -> App:
        """An app of this house: the distribution wm-app-<name>, whose module holds `agent.build` beside `config`, presets
        and ablations, and whose environments are those of env-adapters.

        task_options: fields of the config that are options of some tasks. rest: any other field of `App`.
        """
        module, _, _ = config.__module__.rpartition(".")
        parts: dict[str, Any] = {
            "build": f"{module}.agent:build",
            "environments": Tasks(task_options),
            "decode_action": "env_adapters:decode_action",
        }
        folder = Path(str(sys.modules[config.__module__].__file__)).parent
        stated = version(f"wm-app-{name.replace('_', '-')}")
        return cls(name, name, stated, config, folder, sizes or {}, **(parts | rest))

    def main(self) -> None:
        """The console script."""
        main(self)

    def load(self, logdir: str | Path) -> Loaded:
        """The agent of a run folder; its `policy` takes one unbatched gymnasium observation. UserError if there is
        none."""
        from wm_run import loading

        return loading.load(self, logdir)

    @property
    def module(self) -> str:
        """What `python -m` starts."""
        module = self.build.partition(":")[0] if isinstance(self.build, str) else self.build.__module__
        return module.partition(".")[0]

    def part(self, name: str) -> Callable[..., Any]:
        """One of the functions, imported now."""
        value = getattr(self, name)
        if not isinstance(value, str):
            return value
        module, _, function = value.partition(":")
        return getattr(importlib.import_module(module), function)

    def files(self, kind: Literal["presets", "ablations"]) -> dict[str, Path]:
        """The TOML files of a kind by name."""
        return {path.stem: path for path in sorted((self.folder / kind).glob("*.toml"))}


@dataclass(frozen=True)
class Origin:
    """Where a config came from, kept beside it in config.toml."""

    preset: str = ""
    size: str = ""
    ablation: str = ""
    note: str = ""  # what to say about a choice that was made for the user; not kept


ELSEWHERE = {  # where a command writes if not there
    "train": "choose another --logdir",
    "plot": "choose another --out or --export",
    "": "make the folder writable, or name a copy of the run that is",
}
FUNCTIONS = {
    "play": "wm_run.play:play",
    "plot": "wm_run.plot:plot",
    "eval": "wm_run.commands:evaluate",
}  # others': commands


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

    def changes(self) -> list[str]:
        """What differs from the saved config, as "field: before -> now"."""
        if self.saved is None:
            return []
        old, new = dataclasses.asdict(self.saved), dataclasses.asdict(self.config)
        return [f"{name}: {old[name]} -> {new[name]}" for name in old if old[name] != new[name]]


def main(app: App, argv: Sequence[str] | None = None) -> None:
    """The command line of an app. A user's mistake is one sentence on stderr and exit code 2."""
    argv = sys.argv[1:] if argv is None else list(argv)
    encoding.ensure(argv, typed.program(app.name, argv))
    encoding.tolerate()
    try:
        code = _main(app, argv)
    except KeyboardInterrupt:
        print(f"{app.name}: interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # the reader of our output has seen enough; stdout is pointed elsewhere for the last flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except Exception as error:
        sentence = _sentence(app, error, (argv or [""])[0])
        if sentence is None:
            raise
        print(f"{app.name}: {' '.join(sentence.split())}", file=sys.stderr)
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
    module, _, function = FUNCTIONS.get(command.name, f"wm_run.commands:{command.name}").partition(":")
    return int(getattr(importlib.import_module(module), function)(app, command) or 0)  # torch comes with most


def overview(app: App, program: str) -> str:
    """What `--help` says without a command."""
    lines = [f"usage: {program} COMMAND [OPTIONS]   ({program} COMMAND --help)", ""]
    lines += [f"  {name:6} {(kind.__doc__ or '').strip()}" for name, kind in OPTIONS.items()]
    lines += ["", f"presets:   {listed(app.files('presets'))}", f"ablations: {listed(app.files('ablations'))}"]
    return "\n".join([*lines, f"sizes:     {listed(app.sizes)}"])


def mistaken(app: App, error: Exception) -> bool:
    """Whether an error's message is a sentence for the user."""
    return getattr(error, "user_error", False) or any(kind.__name__ in app.mistakes for kind in type(error).__mro__)


def _sentence(app: App, error: Exception, command: str = "train") -> str | None:
    """What to tell the user, or None for a fault of ours, which keeps its traceback."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if mistaken(app, error):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        again = "give the same --logdir to go on" if command == "train" else "try again"
        return f"the disk is full ({error.filename or 'while writing'}): free some space, then {again}"
    if isinstance(error, OSError) and error.filename and _unwritable(error):
        return f"cannot write {error.filename} ({error.strerror}): {ELSEWHERE.get(command, ELSEWHERE[''])}"
    if "OutOfMemoryError" in names and "torch" in type(error).__module__:
        return "the GPU has too little memory for this run: choose a smaller --size, --batch or --length"
    if isinstance(error, ModuleNotFoundError) and error.name in ("wm_suite", "matplotlib"):
        return f"the package {error.name} is missing: install wm-run[plot]"
    if isinstance(error, ModuleNotFoundError) and error.name in ("tyro", "rich", "tensorboard", "imageio", "av", "PIL"):
        return f"the package {error.name} is missing: install wm-run"
    return None


def _unwritable(error: OSError) -> bool:
    """Whether the place itself is to blame. A file that is not found is, only where a folder was to be made."""
    if isinstance(error, FileNotFoundError):
        return traceback.extract_tb(error.__traceback__)[-1].name in ("mkdir", "makedirs")
    return isinstance(error, (PermissionError, NotADirectoryError, FileExistsError)) or error.errno == errno.EROFS


# ---- argv -> Command


def parse(app: App, argv: Sequence[str]) -> Command:
    """Resolve a command line; raises UserError in one sentence. `--help` prints and exits.

    Torch is imported only where no preset was named and a GPU would change which one runs.
    """
    name = argv[0]
    if name not in OPTIONS:
        raise UserError(unknown("command", name, OPTIONS))
    rest = say_true(app, argv[1:])
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
    saved, base, origin = _base(app, options, given)
    _, config = read(app, name, base, rest, program)
    if options.__class__ in (Train, Info) and saved is None and not origin.preset:
        wish = _automatic(app, config)
        if wish:
            origin = wish
            base = resolve(app, wish.preset, options.size, options.ablation)
            _, config = read(app, name, base, rest, program)
            origin = dataclasses.replace(wish, size=options.size, ablation=options.ablation)
    config = _at_home(config)
    check(config)
    command = Command(name, options, config, saved, origin, tuple(argv), program)
    if name == "train" and saved is not None:
        fixed = [c for c in command.changes() if c.split(":")[0] not in RESUMABLE]
        if fixed:
            raise UserError(
                f"a run keeps what it was started with, but {fixed[0].replace(' -> ', ' became ')}: give another --logdir, "
                f"or leave it out (free to change: {', '.join(RESUMABLE)})"
            )
    return command


def _help(app: App, name: str, options: Any, given: RunConfig, words: list[str], program: str) -> None:
    """Print the help of a command on runs, with the numbers of the run that is named if it is there; exits."""
    base = given
    if not isinstance(options, Plot):
        with contextlib.suppress(UserError):
            base = _base(app, options, given)[1]
    read(app, name, base, words, program)


def _base(app: App, options: Any, given: RunConfig) -> tuple[RunConfig | None, RunConfig, Origin]:
    """The saved config if there is a run, the config that the command line then changes, and where it came from."""
    logdir = Path(options.logdir) if options.logdir else None
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


def resolve(app: App, preset: str = "", size: str = "", ablation: str = "") -> RunConfig:
    """Defaults < preset < size < ablation."""
    config = app.config()
    if preset:
        path = _choose("preset", preset, app.files("presets"))
        values = _toml(path)
        if "size" in values:
            config = overlay(config, _choose("size", str(values.pop("size")), app.sizes), f"preset {preset!r}")
        config = overlay(config, values, f"preset {preset!r}")
    if size:
        config = overlay(config, _choose("size", size, app.sizes), f"size {size!r}")
    if ablation:
        path = _choose("ablation", ablation, app.files("ablations"))
        config = overlay(config, _toml(path), f"ablation {ablation!r}")
    return config


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


def overlay(config: RunConfig, values: Mapping[str, object], where: str) -> RunConfig:
    """The config with these fields. Raises UserError for an unknown field or a value of another type.

    >>> overlay(RunConfig(), {"train_ratio": 32}, "preset 'cpu'").train_ratio
    32.0
    >>> overlay(RunConfig(), {"bacth": 8}, "preset 'cpu'")
    Traceback (most recent call last):
    wm_core.errors.UserError: preset 'cpu': there is no field 'bacth'; did you mean 'batch'?
    """
    hints = typing.get_type_hints(type(config))
    ready = {}
    for name, value in values.items():
        if name not in hints:
            raise UserError(f"{where}: {unknown('field', name, hints)}")
        found = _cast(value, hints[name])
        if found is None:
            raise UserError(f"{where}: {name} takes {describe(hints[name])}, not {value!r}")
        ready[name] = found[0]
    return dataclasses.replace(config, **ready)


def _cast(value: object, hint: Any) -> tuple[Any] | None:
    """(value as the type,), or None where it is of another one."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return (value,) if value in args else None
    if origin is tuple and isinstance(value, (list, tuple)):
        inner = args[:1] * len(value) if args[-1] is Ellipsis else args
        parts = [_cast(item, one) for item, one in zip(value, inner, strict=False)]
        return (tuple(p[0] for p in parts if p),) if all(parts) and len(value) == len(inner) else None
    if origin in (typing.Union, types.UnionType):
        return next((found for one in args if (found := _cast(value, one))), None)
    if hint is float and type(value) is int:
        return (float(value),)
    return (value,) if isinstance(hint, type) and type(value) is hint else None


# ---- config.toml


def write_run(app: App, config: RunConfig, origin: Origin) -> dict[str, Any]:
    """What config.toml holds: every field, and under [run] whose they are and, for readers that do not know wm-run, which
    fields a resumed run may change and which an evaluation."""
    fields = {"resumable": RESUMABLE, "incidental": (*MACHINE, *CHANCE)}
    names = {name: value for name, value in dataclasses.asdict(origin).items() if name != "note"}
    return {**dataclasses.asdict(config), "run": {"app": app.name, "version": app.version, **names, **fields}}


def read_run(app: App, logdir: Path) -> tuple[RunConfig, Origin]:
    """Config and origin of the run in a folder; a field that it lacks is as it was when the run was made.

    Where config.toml is lost, the copy in the last checkpoint stands for it. Raises UserError for no run, or that of
    another app.
    """
    path = logdir / "config.toml"
    values = kept_config(logdir) if lost(path) else _toml(path)
    if not values and path.is_file():
        raise UserError(
            f"{path} is empty, and no checkpoint beside it holds a copy: put it back, or name another folder"
        )
    if not values:
        raise UserError(f"there is no run in {logdir} (no config.toml): name the folder that `train` printed")
    run = values.get("run", {})
    if run.get("app") != app.name:
        raise UserError(f"{logdir} holds a run of {run.get('app') or 'no app'!r}, not of {app.name!r}: use that app")
    origin = Origin(**{name: run.get(name, "") for name in ("preset", "size", "ablation")})
    return config_of(app, values, str(path)), origin


def config_of(app: App, values: Mapping[str, object], where: str) -> RunConfig:
    """The config that a run was saved with, from all that config.toml holds. Raises UserError for other fields."""
    fields = {name: value for name, value in values.items() if name != "run"}
    return overlay(app.config(), unsaid(app.config, fields) | fields, where)


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not TOML: {error}") from error


PLACES = ("logdir", "logdirs", "out", "export", "init_from")


def _at_home(values: Any) -> Any:
    """Options or a config with the ~ of its paths made the home folder, which a shell leaves as it is in --logdir=~/runs/x.

    >>> import os
    >>> _at_home(Train(logdir="~/runs")).logdir == os.path.expanduser("~/runs")
    True
    """
    found = {name: getattr(values, name) for name in PLACES if hasattr(values, name)}
    moved = {
        name: os.path.expanduser(value) if isinstance(value, str) else tuple(map(os.path.expanduser, value))
        for name, value in found.items()
    }
    for name, value in moved.items():
        for path in (value,) if isinstance(value, str) else value:
            encoding.check_path(name, path)
    return dataclasses.replace(values, **moved)


def _choose(kind: str, name: str, known: Mapping[str, Any]) -> Any:
    if name not in known:
        raise UserError(unknown(kind, name, known))
    return known[name]
