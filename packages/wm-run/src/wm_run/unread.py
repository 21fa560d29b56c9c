"""A field that nothing reads with the other numbers as they are: said where the field is, told whoever sets it.

`var_weight: Annotated[float, only(var=True)] = 0.0`. Nothing is refused and no number changes: presets, sizes and ablations
may hold such a field, and a user who gives one hears a sentence.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wm_run.bounds import metadata
from wm_run.stop import say

if TYPE_CHECKING:
    from wm_run.app import App
    from wm_run.config import RunConfig
    from wm_run.teams import Team

ANY = "any"  # of a condition: any value but an empty one, 0 or False
FACTS = {  # of a task, which a condition may name as if it were a field: what is said where it is True, and where False
    "team": ("in a task of several agents", "in a task of one agent"),
    "images": ("in a task with images", "in a task without images"),
    "vectors": ("in a task of more than images", "in a task of images alone"),
}


@dataclass(frozen=True)
class Only:
    """Metadata of a field's type: what other fields, or facts of the task, have to be for anything to read it.

    wanted: (name, values that will do) each; all have to hold. Of several in one type one has to."""

    wanted: tuple[tuple[str, tuple[Any, ...]], ...]

    def lacking(self, values: Mapping[str, Any]) -> list[tuple[str, tuple[Any, ...]]]:
        """What does not hold of these values.

        >>> only(var=True, branches=("fused", "mg")).lacking({"var": True, "branches": "co"})
        [('branches', ('fused', 'mg'))]
        """
        return [(name, wanted) for name, wanted in self.wanted if not _holds(values[name], wanted)]


def only(**wanted: Any) -> Only:
    """Of a field that is read where others have these values: `only(policy="mat")`, `only(branches=("fused", "mg"))`,
    `only(data=ANY)`."""
    return Only(tuple((name, value if isinstance(value, tuple) else (value,)) for name, value in wanted.items()))


def _holds(value: Any, wanted: tuple[Any, ...]) -> bool:
    return bool(value) if wanted == (ANY,) else value in wanted


def unread(
    config: RunConfig, facts: Mapping[str, bool], foreign: Collection[str] = ()
) -> Iterator[tuple[str, list[tuple[str, tuple[Any, ...]]]]]:
    """The fields that nothing reads, each with what is lacking; [] where the task has no such option.

    facts: of the task, by the names of FACTS. foreign: fields that are options of other tasks than this one.
    """
    said = metadata(type(config))
    values = {name: getattr(config, name) for name in said} | dict(facts)
    for name, marks in said.items():
        if name in foreign:
            yield name, []
        elif marks := [mark for mark in marks if isinstance(mark, Only)]:
            lacks = [mark.lacking(values) + _on_the_unread(mark, foreign) for mark in marks]
            if all(lacks):
                yield name, min(lacks, key=len)


def _on_the_unread(mark: Only, foreign: Collection[str]) -> list[tuple[str, tuple[Any, ...]]]:
    return [(name, ()) for name, _ in mark.wanted if name in foreign]


def sentences(
    config: RunConfig, given: Collection[str], facts: Mapping[str, bool], foreign: Collection[str] = ()
) -> list[str]:
    """One sentence about each field that was given and that nothing reads.

    >>> from wm_run.config import RunConfig
    >>> sentences(RunConfig(held_out_every=7), ["held_out_every"], {})
    ['--held-out-every does nothing without --data: give --data, or leave it out']
    """
    values = {name: getattr(config, name) for name in metadata(type(config))} | dict(facts)
    return [
        f"{_flag(name)} does nothing {_where(lacks, values, config)}: {_way_out(lacks)}"
        for name, lacks in unread(config, facts, foreign)
        if name in given
    ]


def _where(lacks: list[tuple[str, tuple[Any, ...]]], values: Mapping[str, Any], config: RunConfig) -> str:
    if not lacks or not all(wanted for _, wanted in lacks):
        return f"with --task {config.task}"
    return " ".join(
        FACTS[name][not values[name]]
        if name in FACTS
        else f"with {_flag(name)} {values[name]}"
        if values[name] != ""
        else f"without {_flag(name)}"
        for name, _ in lacks
    )


def _way_out(lacks: list[tuple[str, tuple[Any, ...]]]) -> str:
    options = [(name, wanted) for name, wanted in lacks if name not in FACTS]
    if not options or len(options) < len(lacks) or not all(wanted for _, wanted in options):
        return "leave it out"
    if ("",) in [wanted for _, wanted in options]:
        return "leave one of them out"
    give = (
        f"{_flag(name)}{'' if wanted == (ANY,) else ' ' + ' or '.join(map(str, wanted))}" for name, wanted in options
    )
    return f"give {' '.join(give)}, or leave it out"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def facts_of(observation_space: Any, team: Team | None) -> dict[str, bool]:
    """The facts of the task with these spaces."""
    from wm_core.observations import is_image

    images = [is_image(space) for space in observation_space.spaces.values()]
    return {"team": team is not None, "images": any(images), "vectors": not all(images)}


def tell(app: App, config: RunConfig, given: Collection[str], observation_space: Any, team: Team | None) -> None:
    """Say on stderr which of the fields that were given nothing reads."""
    foreign = getattr(app.environments, "foreign", None)  # where the app makes its environments itself, nobody knows
    facts = facts_of(observation_space, team)
    for one in sentences(config, given, facts, foreign(config) if foreign else ()):
        say(one)
