"""Words -> the options and the config of a command, by tyro; one sentence where it refuses.

tyro's own text is laid out in boxes over several lines, of which a log keeps none whole: what it refuses is told anew.
"""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import difflib
import io
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from wm_core.errors import UserError

from wm_run.config import TRAINING, RunConfig, marked
from wm_run.options import OPTIONS, Dream, Eval, Export, Info, Play, Plot, Publish, Train
from wm_run.task_options import taken

if TYPE_CHECKING:
    from wm_run.app import App


def say_true(app: App, words: Sequence[str]) -> list[str]:
    """The words with `--var` of a field that is True or False as `--var=True`, where no value follows."""
    hints = typing.get_type_hints(app.config)
    flags = {f"--{name}" for name, hint in hints.items() if hint is bool}
    after = [*words[1:], "--"]
    return [
        f"{word}=True" if word.replace("-", "_").replace("__", "--", 1) in flags and following.startswith("-") else word
        for word, following in zip(words, after, strict=False)
    ]


@contextlib.contextmanager
def unprompted() -> Iterator[None]:
    """Without `builtins._`, where Python's prompt and doctest keep what the last line gave: tyro hashes all of builtins when it is
    imported, and a tuple that holds a list has no hash."""
    kept = {name: value for name, value in vars(builtins).items() if name == "_"}
    for name in kept:
        delattr(builtins, name)
    try:
        yield
    finally:
        vars(builtins).update(kept)


def read(app: App, name: str, default: RunConfig, args: list[str], program: str) -> tuple[Any, RunConfig]:
    """Options and config of a command. Raises UserError, or SystemExit after printing a help that was asked for."""
    with unprompted():
        import tyro
        from tyro.conf import FlagConversionOff, FlagCreatePairsOff, OmitArgPrefixes, PositionalRequiredArgs

    kind = OPTIONS[name]
    options: dict[str, Any] = {}
    if kind is not Plot:
        options, args = taken(args)
    if kind in (Eval, Dream, Play, Export, Publish):  # --logdir D is D
        args = [arg.removeprefix("--logdir=") for arg in args if arg != "--logdir"]
    wants_help, unread = "-h" in args or "--help" in args, io.StringIO()
    parts: list[Any] = [("options", Annotated[kind, OmitArgPrefixes, FlagCreatePairsOff, PositionalRequiredArgs])]
    if kind is not Plot:  # which shows runs and changes none
        shown = _without_tables(default if not wants_help or kind in (Train, Info) else _as_acting(app, default))
        parts += [("config", Annotated[type(shown), OmitArgPrefixes, FlagConversionOff], field(default=shown))]
    both: Any = dataclasses.make_dataclass(name.capitalize(), parts, frozen=True)
    prog, about = f"{program} {name}", (kind.__doc__ or "").strip()
    try:
        if wants_help:
            result = tyro.cli(both, args=args, prog=prog, description=about)
        else:
            with contextlib.redirect_stderr(unread), contextlib.redirect_stdout(unread):
                result = tyro.cli(both, args=args, prog=prog, description=about)
    except SystemExit as stop:
        if wants_help:
            raise
        raise UserError(_diagnose(app, name, args, program)) from stop
    if not hasattr(result, "config"):
        return result.options, default
    fields = {one.name: getattr(result.config, one.name) for one in dataclasses.fields(default)}
    same = fields["task"] == default.task or not default.task
    return result.options, dataclasses.replace(default, **fields | {"env": (default.env if same else {}) | options})


def _without_tables(config: RunConfig) -> RunConfig:
    """The config as tyro is to see it, which does not read `env`: its words are taken before."""
    from tyro.conf import Fixed

    mark = typing.cast("Any", Fixed)
    body: dict[str, Any] = {"__annotations__": {"env": mark[Any]}, "__doc__": type(config).__doc__}
    body["env"] = field(default_factory=dict)
    kind: Any = dataclasses.dataclass(frozen=True)(type(type(config).__name__, (type(config),), body))
    # as text: of a table it would make options of its own, and two of one name a conflict (`--env.length`, `--length`)
    options = ", ".join(f"{name} {value}" for name, value in config.env.items()) or "none"
    shown: RunConfig = kind(**{f.name: getattr(config, f.name) for f in dataclasses.fields(config)} | {"env": options})
    return shown


def _as_acting(app: App, config: RunConfig) -> RunConfig:
    """The config as a help shows it where nothing is learned: without the fields that only training reads."""
    from tyro.conf import Suppress

    kept = {*RunConfig.__dataclass_fields__, *app.acting} - set(marked(RunConfig, TRAINING))
    hidden = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name not in kept}
    hints, mark = typing.get_type_hints(type(config)), typing.cast("Any", Suppress)
    body = {"__annotations__": {name: mark[hints[name]] for name in hidden}, "__doc__": type(config).__doc__}
    kind: Any = dataclasses.dataclass(frozen=True)(type(type(config).__name__, (type(config),), body | hidden))
    shown: RunConfig = kind(**{f.name: getattr(config, f.name) for f in dataclasses.fields(config)})
    return shown


def _diagnose(app: App, name: str, args: list[str], program: str) -> str:
    """Why tyro refused, in one sentence."""
    hints = typing.get_type_hints(OPTIONS[name])
    hints |= {} if OPTIONS[name] is Plot else typing.get_type_hints(app.config)
    refused = (
        () if OPTIONS[name] in (Train, Info) else marked(app.config, TRAINING)
    )  # later, in a sentence of their own
    required = [f.name for f in dataclasses.fields(OPTIONS[name]) if f.default is dataclasses.MISSING]
    flags = [f.name for f in dataclasses.fields(OPTIONS[name]) if f.type in (bool, "bool")]
    loose: list[str] = []
    at = 0
    while at < len(args):
        option, equals, inline = args[at].partition("=")
        at += 1
        if not option.startswith("--"):
            loose.append(args[at - 1])
            continue
        key = option[2:].replace("-", "_")
        if key not in hints:
            if key in ("preset", "size", "ablation"):
                return f"`{name}` takes {option} from the run in LOGDIR: leave it out"
            return unknown("option", option, [f"--{one.replace('_', '-')}" for one in hints if one not in refused])
        if key in flags:
            continue
        values = [inline] if equals else []
        several = typing.get_origin(hints[key]) is tuple
        while not equals and at < len(args) and not args[at].startswith("--") and (several or not values):
            values.append(args[at])
            at += 1
        if not values:
            return f"{option} needs a value: {describe(hints[key])}"
        if not _readable(hints[key], values):
            return f"{option} takes {describe(hints[key])}, not {' '.join(values)!r}"
    if len(loose) < len(required):
        return f"`{name}` needs the {required[0].upper()} of a run"
    if len(loose) > len(required) and OPTIONS[name] is not Plot:
        return f"{loose[len(required)]!r} is not an option: options begin with --"
    return f"cannot read these options: {program} {name} --help lists them"


def _readable(hint: Any, values: list[str]) -> bool:
    """Whether tyro reads these words as the type."""
    import tyro

    unread = io.StringIO()
    try:
        with contextlib.redirect_stderr(unread), contextlib.redirect_stdout(unread):
            tyro.cli(hint, args=values)
    except SystemExit:
        return False
    return True


def describe(hint: Any) -> str:
    """A type in words.

    >>> describe(int), describe(Literal["a", "b"]), describe(tuple[int, ...])
    ('a whole number', 'one of a, b', 'a list (a whole number)')
    """
    words = {int: "a whole number", float: "a number", bool: "True or False", str: "text"}
    if hint in words:
        return words[hint]
    args = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return f"one of {listed(map(str, args))}"
    if typing.get_origin(hint) is tuple:
        return f"a list ({describe(args[0])})"
    return str(getattr(hint, "__name__", hint))


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """A sentence about a name that does not exist, with the nearest one, or all where they are few.

    >>> unknown("preset", "cpuu", ["cpu", "tiny"])
    "there is no preset 'cpuu'; did you mean 'cpu'? (presets: cpu, tiny)"
    """
    names = list(known)
    close = difflib.get_close_matches(name, names, 1, 0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    every = f" ({kind}s: {listed(names)})" if len(names) <= 16 else ""
    return f"there is no {kind} {name!r}{hint}{every or ('' if close else ': --help lists them')}"


def listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
