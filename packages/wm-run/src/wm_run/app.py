"""A method as data: what the commands need of it, and where its numbers came from. Imports no torch."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wm_run.config import RunConfig
from wm_run.options import OPTIONS
from wm_run.tasks import Tasks

if TYPE_CHECKING:
    from wm_run.loading import Loaded

Part = str | Callable[..., Any]  # a function, or "module:function", imported when it is needed


@dataclass(frozen=True)
class App:
    """A method with everything the commands need.

    config: a frozen subclass of RunConfig, importable without torch. folder holds presets/*.toml and ablations/*.toml.
    sizes: field overrides by name. build(config, observation_space, action_spec) -> Learner, with device and precision
    of the config resolved. environments(config, n) -> n environments (wm_run.loop.Environments).
    decode_action(space, vector (A,)) -> native action, encode_action(space, native) -> its vector. estimate(config,
    numbers) -> entries to add to what `info`
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
    teams: Literal["none", "only", "too"] = (
        "none"  # learns environments of several agents, of whose Team `build` is told
    )
    recordings: bool = True  # learns from what others did, too: `--data`
    remembers: bool = False  # what the agent knows outlives episodes: an evaluation begins with training's
    acting: tuple[str, ...] = ()  # fields of the method that count where nothing is learned, as `eval --help` shows
    encode_action: Part | None = None

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
            "encode_action": "env_adapters:encode_action",
        }
        folder = Path(str(sys.modules[config.__module__].__file__)).parent
        stated = version(f"wm-app-{name.replace('_', '-')}")
        return cls(name, name, stated, config, folder, sizes or {}, **(parts | rest))

    def main(self) -> None:
        """The console script."""
        from wm_run.cli import main

        main(self)

    def load(self, logdir: str | Path, *, device: str = "auto", env: Any = None) -> Loaded:
        """The agent of a run folder, or a published one by its folder, pretrained:NAME or hf:ORG/NAME[@REVISION]; its
        `policy` takes one unbatched gymnasium observation. UserError if there is none. env: as in `train`, where no name
        leads to the environment."""
        from wm_run import from_python, loading

        return loading.load(from_python.named_task(self, env)[1], logdir, device=device)

    def train(self, env: Any = None, **asked: Any) -> Loaded:
        """Train from Python, see `wm_run.from_python.train`; the trained agent, as `load` gives it."""
        from wm_run import from_python

        return from_python.train(self, env, **asked)

    def instead_of(self, other: object) -> str:
        """The end of a sentence about what is another app's: whose it is not, and what to do."""
        name = str(other or "").replace("_", "-")
        try:
            version(f"wm-app-{name}")
        except (PackageNotFoundError, ValueError):
            absent = f", wm-app-{name}, which is not installed here" if name else ""
            return f"not of {self.name!r}: use that app{absent}"
        return f"not of {self.name!r}: use that app"

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
