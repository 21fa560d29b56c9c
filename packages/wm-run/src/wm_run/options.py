"""Options of the commands, besides the fields of the config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Memory = Literal["auto", "training", "empty"]


@dataclass(frozen=True)
class Train:
    """Train an agent; the same --logdir resumes."""

    preset: str = ""
    """Named numbers of a whole run."""
    size: str = ""
    """Size of the networks."""
    ablation: str = ""
    """A row of the paper's ablation tables."""
    logdir: str = ""
    """The run folder itself; default runs/<stamp>-<task>-<method>-<seed>."""
    trust: bool = False
    """Run the code that the task of the folder names, of whoever gave it to you; needed where the task was not asked for on
    this account before, or its module lies in a run folder."""


@dataclass(frozen=True)
class Info(Train):
    """Show the resolved config, parameters per module, and what a run takes."""

    json: bool = False
    """One JSON object instead of text."""
    count: bool = False
    """Count what an update computes by its shapes, instead of making one and measuring its time: for networks that are too
    large for this machine."""


@dataclass(frozen=True)
class Eval:
    """Play fresh episodes with a trained agent; the result goes to LOGDIR/eval."""

    logdir: str
    """The folder of a run or of a published agent, pretrained:NAME, or hf:ORG/NAME[@REVISION]."""
    trust: bool = False
    """Run the code that the task of the folder names, of whoever gave it to you; needed where the task was not asked for on
    this account before, or its module lies in a run folder."""
    episodes: int | None = None
    """How many; where it is not given, the run's `final_episodes`, or 10 where it has none."""
    mode: bool = False
    """Act by the policy's mode; the run's `eval_acting` says what is done where neither is given."""
    sample: bool = False
    """Act by a sample of the policy, as in training."""
    memory: Memory = "auto"
    """What the agent remembers at the start: training's last steps, or nothing; auto is training's for an agent whose
    memory outlives episodes."""


@dataclass(frozen=True)
class Dream:
    """Open-loop prediction on held-out frames: a video of true, predicted and error, and the error by horizon."""

    logdir: str
    """The folder of a run or of a published agent, pretrained:NAME, or hf:ORG/NAME[@REVISION]."""
    trust: bool = False
    """Run the code that the task of the folder names, of whoever gave it to you; needed where the task was not asked for on
    this account before, or its module lies in a run folder."""
    observed: int = 5
    """Steps of context, before the dream."""
    imagined: int = 45
    """Steps of the dream."""
    rows: int = 6
    """Sequences shown."""
    sensitivity: bool = False
    """Draw which pixels the decoder is sensitive to along the dream, and which of them for the value."""


@dataclass(frozen=True)
class Play:
    """Watch the agent, in a window or as a video: in the environment, or inside its dream."""

    logdir: str
    """The folder of a run or of a published agent, pretrained:NAME, or hf:ORG/NAME[@REVISION]."""
    trust: bool = False
    """Run the code that the task of the folder names, of whoever gave it to you; needed where the task was not asked for on
    this account before, or its module lies in a run folder."""
    dream: bool = False
    """The world model imagines, from a real start of --observed steps."""
    show: Literal["auto", "window", "video"] = "auto"
    """auto opens a window where there is a display and pygame, else writes LOGDIR/video/play-<step>.mp4."""
    browser: bool = False
    """A page on this machine's loopback instead: the environment or its dream at any frame, by keys or by the policy."""
    port: int = 0
    """Of that page; 0: any that is free."""
    imagined: int = 45
    """Steps of a dream there."""
    episodes: int = 1
    """How many; with --dream, dreams."""
    frames: int = 500
    """At most so many, all episodes together; a window knows no limit."""
    observed: int = 5
    """Real steps before a dream."""
    agent: int = 0
    """Of a team, which agent is shown, and obeys held keys."""
    mode: bool = False
    """Act by the policy's mode."""
    sample: bool = False
    """Act by a sample of the policy, as in training (the default)."""
    memory: Memory = "auto"
    """What the agent remembers at the start: the last steps of training's first environment, or nothing; auto is training's
    for an agent whose memory outlives episodes, as in `eval`."""


@dataclass(frozen=True)
class Publish:
    """Write the agent of a run as a folder that plays, with its card; or send it to a hub."""

    logdir: str
    """The folder of a run; or one that `publish` wrote, to send it."""
    trust: bool = False
    """Run the code that the task of the folder names, of whoever gave it to you; needed where the task was not asked for on
    this account before, or its module lies in a run folder."""
    to: str = ""
    """A folder, or hf:ORG/NAME to upload it (`wm-run[hub]`); default LOGDIR/published."""
    rows: str = ""
    """A file of JSON lines with the scores of every seed, as `tools/suite.py` writes them; without it the card tells the run's
    own evaluation."""
    licence: str = "mit"
    """Of the weights, as the hub names it."""
    memories: int = 8
    """Of an app that remembers across episodes: training's environments, the first ones, whose memory is given away; a player
    needs one for each of its environments, and has them in turn where these are more."""
    private: bool = False
    """A repository that is made for it is for you alone."""


@dataclass(frozen=True)
class Plot:
    """Curves over seeds of any runs, of this app or others: one HTML page, and a PNG."""

    logdirs: tuple[str, ...]
    """Folders of runs, or folders that hold some."""
    out: str = ""
    """Both files without their endings; default LOGDIR/report for one run, ./report for several."""
    mixed: bool = False
    """Put runs of one task under different protocols side by side, each marked."""
    export: str = ""
    """A folder for links to the runs under names that danijar's plot.py reads, <stamp>-<task>-<method>-<seed>."""


@dataclass(frozen=True)
class Export:
    """Files that act and dream without this code: ONNX and torch.export, compared with the agent over an episode."""

    logdir: str
    """The folder of a run or of a published agent, pretrained:NAME, or hf:ORG/NAME[@REVISION]."""
    trust: bool = False
    """Run the code that the task of the folder names, of whoever gave it to you; needed where the task was not asked for on
    this account before, or its module lies in a run folder."""
    out: str = ""
    """Where they go; default LOGDIR/export."""
    compare: int = 1000
    """At most so many steps of an episode are compared."""


OPTIONS: dict[str, type[Train | Eval | Dream | Play | Plot | Export | Publish]] = {
    "train": Train,
    "eval": Eval,
    "dream": Dream,
    "play": Play,
    "plot": Plot,
    "export": Export,
    "publish": Publish,
    "info": Info,
}
