"""defaults < preset < size < ablation -> a config; and a config -> config.toml and back. Imports no torch."""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from wm_core.errors import UserError

from wm_run.app import App, Origin
from wm_run.config import CHANCE, MACHINE, RunConfig, marked, resumable, unsaid
from wm_run.durable import lost
from wm_run.manifest import kept_config
from wm_run.reading import describe, unknown


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
    if origin is dict:
        return (dict(value),) if isinstance(value, Mapping) else None
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


def write_run(app: App, config: RunConfig, origin: Origin) -> dict[str, Any]:
    """What config.toml holds: every field, and under [run] whose they are and, for readers that do not know wm-run, which
    fields a resumed run may change and which an evaluation."""
    fields = {"resumable": resumable(type(config)), "incidental": marked(type(config), MACHINE, CHANCE)}
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
        raise UserError(f"{logdir} holds a run of {run.get('app') or 'no app'!r}, {app.instead_of(run.get('app'))}")
    origin = Origin(**{name: run.get(name, "") for name in ("preset", "size", "ablation")})
    return config_of(app, values, str(path)), origin


def config_of(app: App, values: Mapping[str, object], where: str) -> RunConfig:
    """The config that a run was saved with, from all that config.toml holds. Raises UserError for other fields."""
    fields = {name: value for name, value in values.items() if name != "run"}
    return overlay(app.config(), unsaid(app.config, fields) | fields, where)


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin a file with a mark
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8, as TOML has to be: save it in that encoding") from error
    except (ValueError, RecursionError) as error:  # of 5,000 digits, of 5,000 lists in each other
        raise UserError(f"{path} is not TOML: {error}") from error


def _choose(kind: str, name: str, known: Mapping[str, Any]) -> Any:
    if name not in known:
        raise UserError(unknown(kind, name, known))
    return known[name]
