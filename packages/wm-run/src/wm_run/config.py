"""The numbers every run has. An app's Config is a frozen subclass that adds the numbers of its method.

A saved config that lacks a field takes what the code did when it was written: `now(default, was=...)` says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal, TypeVar

from wm_core.errors import UserError

from wm_run.bounds import LAST, Bounds, Count, RowLength, check_bounds, metadata
from wm_run.unread import ANY, only

WAS = "was"  # in a field's metadata
FREE, TRAINING, MACHINE, CHANCE = "resumable", "training", "machine", "chance"  # in a field's type
PLAYED = only(data="")  # of a field that nobody reads where a recording is learned from

Kind = TypeVar("Kind")
Resumable = Annotated[Kind, FREE]
"""Of a field that may be another when its run is resumed, `keep: Resumable[Count] = 2`: nothing that has been learned or
measured so far depends on it."""
Training = Annotated[Kind, TRAINING]
"""Of a field that nobody reads where nothing is learned: `eval`, `dream` and `play` refuse another value of it."""
Machine = Annotated[Kind, MACHINE]
"""Of a field that says where it ran: a result with another value of it is still the run's own."""
Chance = Annotated[Kind, CHANCE]
"""Of a field that says which episodes were drawn: a result with another value of it is of the same agent and task."""


def marked(kind: type[Any], *marks: str) -> tuple[str, ...]:
    """The names of a config's fields whose types carry one of these marks, in the order of the fields.

    >>> @dataclass(frozen=True)
    ... class Config:
    ...     units: int = 8
    ...     patience: Training[Resumable[int]] = 3
    >>> marked(Config, FREE), marked(Config, MACHINE, TRAINING)
    (('patience',), ('patience',))
    """
    said = metadata(kind)
    return tuple(one.name for one in fields(kind) if any(mark in said[one.name] for mark in marks))


def resumable(kind: type[Any]) -> tuple[str, ...]:
    """The names of a config's fields that a resumed run may change."""
    return marked(kind, FREE)


def now(default: Any, *, was: Any) -> Any:
    """A field's default that differs from what runs of commit 2028e95 did: `default` for new runs, `was` for a saved
    config that lacks the field. To be used for a new field and for a default that changes.

    >>> @dataclass(frozen=True)
    ... class Config:
    ...     units: int = 8
    ...     outscale: float = now(1.0, was=0.01)
    >>> Config(), unsaid(Config, {"units": 16})
    (Config(units=8, outscale=1.0), {'outscale': 0.01})
    """
    return field(default=default, metadata={WAS: was})


def unsaid(kind: type[Any], values: Mapping[str, object]) -> dict[str, Any]:
    """What the fields that a saved config lacks were for its run, where that is not the default of today."""
    lacking = [one for one in fields(kind) if one.name not in values and WAS in one.metadata]
    return {one.name: one.metadata[WAS] for one in lacking}


@dataclass(frozen=True)
class RunConfig:
    """One flat level of fields; TOML presets and the command line fill them.

    >>> RunConfig(task="toy:catch", batch=8).batch
    8
    """

    task: str = ""
    """Environment: atari100k_<game>, dmc_<domain>_<task>, dmc_vision_<domain>_<task>, memory_maze_<size>,
    bsuite_<experiment>/<id>, popgym_<name>, toy:<name>, gym:<id>, or <module>:<factory> of your own; for apps of
    several agents smax:<scenario>, smac:<map>, smacv2:<race>_<n>_vs_<m>, meltingpot:<substrate>, zoo:<module>;
    `uv run -m env_adapters tasks` lists them."""
    env: dict[str, Any] = field(default_factory=dict, metadata={WAS: {}})
    """Options of the task, each as `--env.NAME VALUE`: --env.cues 8 of toy:doors, --env.max_episode_steps 200 of gym:<id>;
    one that the task does not have is refused with those that it has."""
    seed: Chance[Annotated[int, Bounds(below=2**62, why="must lie in [0, 2**62)")]] = 0
    """Of weights, environments, replay and policy."""
    steps: Training[Resumable[int]] = 400_000
    """Environment steps of the run, action repeat included, reset records not counted."""
    device: Machine[Resumable[Literal["auto", "cpu", "cuda"]]] = "auto"
    """Where the networks run; auto takes a GPU where there is one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the networks; auto is bf16 on a GPU and fp32 on a CPU."""
    capture: Machine[Resumable[Literal["auto", "graph", "compile", "eager"]]] = "auto"
    """Updates and acts of fixed shapes: recorded as one CUDA graph each, networks compiled by torch, or neither; auto is
    graph on one GPU and eager elsewhere."""
    threads: Machine[Resumable[int]] = 0
    """CPU threads of the networks; 0 leaves torch's choice."""
    devices: Training[Count] = 1
    """Processes that learn one agent together, each with its own environments and rows: N times `envs` and `batch`."""
    envs: Chance[Count] = 1
    """Environments side by side; each has its own replay stream."""
    workers: Machine[Resumable[Annotated[int, Bounds(least=-1)]]] = -1
    """Environment processes; 0 runs them in this process, -1 leaves the choice to the adapter."""
    timeout: Machine[Resumable[float]] = now(60.0, was=60.0)
    """Seconds that an environment process may take over a step or a reset before it counts as hung and is replaced; games
    and simulators may need minutes. Over its start it may take 120, or this if it is more. Environments in this process
    (`workers` 0, or a single one unless `workers` is 1) have no limit."""
    attempts: Machine[Resumable[Count]] = now(5, was=5)
    """Failures of an environment without a step between, after which the run is saved and ends."""
    restore: Annotated[Training[Resumable[bool]], PLAYED] = now(True, was=True)
    """Put episodes under way back when the run is resumed, by a snapshot or by executing their actions again; False cuts
    them as truncations: for what cannot be put back, as a robot or a server."""
    grids: tuple[str, ...] | None = now(None, was=None)
    """Observations of small bytes that are grids of symbols and no pictures, where their space does not tell. None plays a
    few steps to find out when the run begins; what was found is kept here, and holds for whatever is done with the run."""
    drop: tuple[str, ...] | None = now(None, was=None)
    """Observations that are left out. None leaves out what is no array, as a text, and tells; what that was is kept here, and
    holds for whatever is done with the run."""
    exclusive: Training[Resumable[bool]] = now(False, was=False)
    """The task has room for one set of environments at a time (a port, a licence, a robot): evaluations and videos on the
    way are left out, and the videos at the end wait until the run's own environments are closed."""
    batch: Training[Count] = 16
    """Rows of a replay batch."""
    length: Training[RowLength] = 64
    """Steps of a row."""
    train_ratio: Training[float] = 128.0
    """Replayed steps per policy step: an update every batch * length / train_ratio policy steps."""
    ratio_counts: Annotated[Training[Literal["actions", "records"]], PLAYED] = now("actions", was="actions")
    """Policy steps of `train_ratio`: actions, or reset records too, as in DreamerV3's official loop."""
    online_stride: Annotated[Training[int], PLAYED] = now(0, was=0)
    """Steps between two of the newest rows that are learned from at once; 0: as many as a row has. DreamerV3's official
    loop has one more, of which it takes the first for context alone."""
    learning_starts: Annotated[Training[int], PLAYED] = 1024
    """Records in the replay of each process before the first update. The policy acts from the first step on."""
    first_updates: Annotated[Training[Count], PLAYED] = now(1, was=1)
    """Updates at once when learning begins, as for a behaviour that is to begin with a model that has learned something."""
    act_temperature: Training[
        Annotated[float, Bounds(above=0, why="must be above 0 (0.01 is all but the policy's mode)"), PLAYED]
    ] = now(1.0, was=1.0)
    """Of the policy's samples while training collects; dreams and evaluations have none."""
    replay_bytes: Training[Resumable[Count]] = 20_000_000_000
    """Budget of the replay on disk, an eighth of it for what a resumed run needs back; beyond it the oldest chunk goes."""
    chunk: Training[Count] = 1024
    """Steps per stream in a replay file; what is evicted at once."""
    log_every: Training[Resumable[Count]] = 2_000
    """Environment steps between two lines of metrics."""
    save_every: Training[Resumable[Count]] = 20_000
    """Environment steps between two checkpoints; one more is made whenever the replay needs the room."""
    keep: Training[Resumable[Count]] = 2
    """Checkpoints that stay: the last so many."""
    milestone_every: Training[Resumable[int]] = 0
    """Environment steps between two checkpoints that stay for ever; 0: none."""
    init_from: Training[str] = ""
    """Whose weights a new run begins with: a run folder or a checkpoint, the folder of a published agent, pretrained:NAME, or
    hf:ORG/NAME[@REVISION]."""
    data: Machine[Resumable[str]] = now("", was="")
    """A recording (`wm-run collect`, `wm-run import`) to learn from alone: no environment is made, and steps are those of a
    run in the environment that makes as many updates. Its task is the run's; a resumed run may find it elsewhere."""
    data_checksum: Training[str] = now("", was="")
    """Of that recording, filled in when the run begins: it goes on with no other."""
    behaviour: Training[bool] = now(True, was=True)
    """Learn policy and values beside the world model; False: the world model alone, and the policy stays what it was."""
    held_out_every: Annotated[Training[Resumable[int]], only(data=ANY)] = now(2_000, was=2_000)
    """Steps between two looks at a recording's held-out episodes, `held_out/loss/...` in the log; 0: none."""
    eval_every: Training[Resumable[int]] = 0
    """Environment steps between two evaluations in fresh environments; 0: none."""
    eval_episodes: Annotated[Training[Resumable[Count]], only(eval_every=ANY)] = 10
    """Episodes of such an evaluation."""
    eval_acting: Training[Literal["sample", "mode"]] = now("sample", was="sample")
    """How the policy acts in evaluations, and in `eval` where neither --mode nor --sample is given."""
    eval_envs: Chance[Resumable[int]] = now(0, was=0)
    """Environments side by side in evaluations; 0: as many as in training."""
    final_episodes: Training[Resumable[int]] = now(0, was=0)
    """Episodes of the evaluation at the end of the run, and of `eval` where it is not told how many; 0: none at the end."""
    video_every: Training[Resumable[int]] = 0
    """Environment steps between two videos of policy and open loop; 0: none on the way."""
    final_video: Training[Resumable[bool]] = now(True, was=True)
    """Videos of policy and open loop when the run is finished, played in environments of their own."""
    tensorboard: Training[Resumable[bool]] = True
    """Write TensorBoard files beside the JSON lines."""
    log: Training[Resumable[tuple[Literal["wandb", "trackio"], ...]]] = ()
    """Services that get numbers, config and films too (--track says the same); one that is missing or fails is told once and
    never stops the run."""

    @property
    def longest(self) -> int:
        """Steps of the longest row that an update samples; before a replay holds one there is none."""
        return self.length

    @property
    def stride(self) -> int:
        """Steps between two rows of the newest steps; 0: as many as a row has."""
        return self.online_stride

    @property
    def mistake(self) -> str:
        """A sentence about numbers that do not fit each other, with the way out; empty where all do."""
        return ""

    @property
    def replayed(self) -> int:
        """Replayed steps that an update counts as, in `train_ratio`."""
        return self.batch * self.length

    @property
    def settled(self) -> RunConfig:
        """The same without what a method does otherwise in its first updates: an estimate makes one of all the others."""
        return self

    @property
    def computed(self) -> int:
        """Steps of rows that an update computes with: what its cost grows with."""
        return self.replayed

    def part(self, batch: int, length: int) -> RunConfig:
        """The same with updates of `batch` rows of `length` steps, or of the least number above from which dreams begin in
        the same share of the steps (`LastSteps`): what an estimate makes in place of the whole. An app whose updates have
        further sizes lessens these too.

        >>> RunConfig(batch=16, length=64).part(2, 4).computed
        8
        """
        found = {name: getattr(self, name) for name, said in metadata(type(self)).items() if LAST in said}
        last = {name: min(count, self.length) for name, count in found.items() if count}
        length = min(self.length, max([length, *(math.ceil(2 * self.length / count) for count in last.values())]))
        shares: dict[str, Any] = {name: round(count * length / self.length) for name, count in last.items()}
        return replace(self, batch=batch, length=length, **shares)

    @property
    def before_learning(self) -> int:
        """Records, of all processes together, that the first update waits for."""
        return max(self.learning_starts, self.longest * self.envs) * self.devices


def check(config: RunConfig) -> None:
    """Refuse numbers that no run can have. Raises UserError naming the field.

    >>> check(RunConfig(batch=0))
    Traceback (most recent call last):
    wm_core.errors.UserError: batch must be at least 1, not 0
    """
    check_bounds(config)


def check_together(config: RunConfig) -> None:
    """Refuse numbers of which each is one, but that do not fit each other. Raises UserError with the config's `mistake`."""
    if config.mistake:
        raise UserError(config.mistake)
