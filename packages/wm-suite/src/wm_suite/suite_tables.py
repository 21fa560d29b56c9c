"""A board -> tables of tasks and arms in HTML: scores with their seeds, what was measured beside, win rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape

from wm_suite.aggregate import win_rate
from wm_suite.cells import KNOWN, Board, Entry, Planned
from wm_suite.chart import COLOURS
from wm_suite.document import swatch
from wm_suite.errors import SuiteError
from wm_suite.passport import Passport, said, spread
from wm_suite.printed import Printed

SEEDS_SHOWN = 6  # of one entry, one by one; the passport has all
FEW_TASKS = 3  # so many stand in columns, for then there are mostly more arms
STRIP = 120, 14  # size of the small drawing of an entry's seeds
SCORE = "mean of {} over {}, plus or minus one standard error over seeds"


class Footnotes:
    """Sentences under a table, each once, and the numbers that lead to them."""

    def __init__(self, prefix: str) -> None:
        self.prefix, self.sentences = prefix, dict[str, int]()

    def __call__(self, sentences: Iterable[str]) -> str:
        """HTML of the numbers of these."""
        numbers = [self.sentences.setdefault(one, len(self.sentences) + 1) for one in sentences]
        links = [f'<a href="#{self.prefix}{number}">{number}</a>' for number in numbers]
        return f"<sup>{' '.join(links)}</sup>" if links else ""

    def list(self) -> str:
        """HTML of all."""
        items = "".join(f'<li id="{self.prefix}{number}">{escape(one)}</li>' for one, number in self.sentences.items())
        return f'<ol class="footnotes">{items}</ol>' if items else ""


def plural(count: int, noun: str) -> str:
    """
    >>> plural(1, "seed"), plural(2, "seed")
    ('1 seed', '2 seeds')
    """
    return f"{count:,} {noun}{'s' * (count != 1)}"


def grid(
    board: Board,
    cell: Callable[[str, str], str],
    caption: str,
    more: Mapping[str, tuple[str, Mapping[str, str]]] | None = None,
) -> str:
    """A table of cells by task and arm; few tasks stand in columns, many in rows.

    Args:
        board: whose tasks and arms.
        cell: the <td> of a task and an arm.
        caption: above it.
        more: beside the arms, under names of their own: a heading, and the <td> of every task.
    """
    more = more or {}
    names = {arm: f"{swatch(i)}{escape(arm)}" for i, arm in enumerate(board.arms)}
    names |= {name: heading for name, (heading, _) in more.items()}
    columns = {task: escape(task) for task in board.tasks}

    def at(task: str, name: str) -> str:
        return more[name][1][task] if name in more else cell(task, name)

    if len(board.tasks) > FEW_TASKS:
        corner, across, down = "task", names, columns
        cells = {(task, name): at(task, name) for task in board.tasks for name in names}
    else:
        corner, across, down = "arm", columns, names
        cells = {(name, task): at(task, name) for name in names for task in board.tasks}
    head = f'<tr><th scope="col">{corner}</th>{"".join(f"<th scope=col>{one}</th>" for one in across.values())}</tr>'
    lines = [
        f'<tr><th scope="row">{text}</th>{"".join(cells[name, other] for other in across)}</tr>'
        for name, text in down.items()
    ]
    return framed(caption, head, lines)


def framed(caption: str, head: str, lines: Iterable[str]) -> str:
    """A table that scrolls by itself where the page is narrow, under its caption, which does not."""
    return (
        f'<div class="framed"><p class="about">{escape(caption)}</p><div class="wide" tabindex="0" role="region" '
        f'aria-label="{escape(caption, quote=True)}"><table class="grid-of-scores"><thead>{head}</thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div></div>"
    )


def scores(board: Board, score: str, book: Passport, printed: Sequence[Printed] = ()) -> str:
    """What every arm reached on every task: mean and standard error over seeds, the seeds themselves, and what is unlike
    or not there; beside it what papers print, which is marked and in no other number."""
    footnotes = Footnotes("score-note-")
    none = "not planned" if board.planned else "no row"
    scales = {task: _scale(board, task, score) for task in board.tasks}

    def cell(task: str, arm: str) -> str:
        entries, gaps = board.entries.get((task, arm), ()), board.gaps.get((task, arm), ())
        colour = board.arms.index(arm)
        parts = [_entry(one, score, book, footnotes, scales[task], colour) for one in entries]
        parts += _gaps(gaps, bool(entries))
        if not parts:
            parts = [f'<span class="gap">{none}</span>']
        return f"<td>{''.join(parts)}</td>"

    more = {
        f"{one.name}/{method}": (heading, cells)
        for one in printed
        for method, heading, cells in _printed(one, board, footnotes)
    }
    caption = f"{capital(score)}: mean over seeds, and one standard error of it; under it every seed's own mean."
    return grid(board, cell, caption, more) + footnotes.list()


def columns_of(one: Printed, tasks: Sequence[str]) -> list[str]:
    """The methods of which a printed table says something of these tasks."""
    return [method for method in one.methods if any(math.isfinite(one.score(task, method)) for task in tasks)]


def _printed(one: Printed, board: Board, footnotes: Footnotes) -> list[tuple[str, str, dict[str, str]]]:
    """Methods, headings and cells of a printed table."""
    seeds = f", {plural(one.seeds, 'seed')}" if one.seeds else ""
    sentence = (
        f"as printed in {one.source}{seeds}: {one.about}; of the paper's own protocol, and in no other number here"
    )
    sentence += f" ({'; '.join(one.misprints)})" if one.misprints else ""
    found = []
    for method in columns_of(one, board.tasks):
        cells = {}
        for task in board.tasks:
            value, error = one.score(task, method), one.error(task, method)
            text = f"{value:,g}" + (f" ± {error:,g}" if math.isfinite(error) else "")
            cells[task] = f'<td class="printed">{text if math.isfinite(value) else "not printed"}</td>'
        heading = (
            f'<span class="printed">{escape(method)}{footnotes([sentence])}<small class="gap">printed</small></span>'
        )
        found.append((method, heading, cells))
    return found


def capital(text: str) -> str:
    """
    >>> capital("score"), capital("")
    ('Score', '')
    """
    return text[:1].upper() + text[1:]


def _entry(
    one: Entry, score: str, book: Passport, footnotes: Footnotes, scale: tuple[float, float], colour: int
) -> str:
    mean, error, count = one.over_seeds(score)
    key = entry_key("score", one)
    means = [sample.mean(score) for sample in one.samples]
    listed = [
        sample for sample in one.samples if isinstance(sample.row[score], list)
    ]  # else one number for all episodes
    episodes = f", {plural(sum(len(sample.episodes(score)) for sample in listed), 'episode')}" if listed else ""
    how = SCORE.format(score, plural(count, "seed")) + ("; of each seed the mean of its episodes" if listed else "")
    number = book.number(key, spread(mean, error), how, one.samples, mean=mean, error=error)
    each = ""
    if 1 < len(means) <= SEEDS_SHOWN:
        spans = []
        for sample, value in zip(one.samples, means, strict=True):
            seed = sample.key[2]
            how = f"seed {seed}: {score}"
            if sample in listed:
                how = f"seed {seed}: mean of {score} over {plural(len(sample.episodes(score)), 'episode')}"
            name = f"{key}, seed {seed}"
            name = book.keep(name, said(value), how, [sample], mean=value)
            spans.append(
                f'<span data-n="{escape(name, quote=True)}" title="{escape(how, quote=True)}">{said(value)}</span>'
            )
        each = f"{', '.join(spans)} &middot; "
    mark = f'<small class="unlike">{escape(one.mark)}</small>' if one.mark else ""
    counts = f"<small>{each}{plural(len(one.samples), 'seed')}{episodes}</small>"
    drawn = strip(means, mean, error, scale, colour)
    return f'<div class="entry"><div class="value"><span>{number}{footnotes(one.doubts)}</span>{drawn}</div>{mark}{counts}</div>'


def entry_key(kind: str, one: Entry) -> str:
    """The name of an entry's number."""
    return f"{kind}: {one.arm} on {one.task}" + (f" [{one.mark}]" if one.mark else "")


def _gaps(gaps: Sequence[Planned], some: bool) -> list[str]:
    """What a cell says of runs without a row."""
    found = []
    failed = [one for one in gaps if one.state == "failed"]
    for one in failed[:2]:
        why = f": {one.detail}" if one.detail else ""
        found.append(f'<small class="gap failed">seed {one.seed} failed{escape(_cut(why))}</small>')
    if len(failed) > 2:
        found.append(f'<small class="gap failed">{len(failed) - 2} more failed</small>')
    for state in dict.fromkeys(one.state for one in gaps if one.state != "failed"):
        mine = [one for one in gaps if one.state == state]
        which = f"seed{'s' * (len(mine) > 1)} {', '.join(str(one.seed) for one in mine)} " if some or failed else ""
        found.append(f'<small class="gap">{escape(which + state)}</small>')
    return found


def _cut(text: str, longest: int = 90) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _scale(board: Board, task: str, score: str) -> tuple[float, float]:
    """From the least to the largest number that a strip of this task draws."""
    found = [0.0]
    here = [one for arm in board.arms for one in board.entries.get((task, arm), ())]
    for one in here:
        mean, error, _ = one.over_seeds(score)
        found += [mean - error, mean + error, *(sample.mean(score) for sample in one.samples)]
    finite = [value for value in (found[1:] if here else found) if math.isfinite(value)] or [0.0]
    return min(finite), max(finite)


def strip(means: Sequence[float], mean: float, error: float, scale: tuple[float, float], colour: int) -> str:
    """A dot for each seed and a bar of one standard error, on the scale of the task; the numbers stand beside it."""
    width, height = STRIP
    low, span = scale[0], (scale[1] - scale[0]) or 1.0

    def at(value: float) -> str:
        return f"{4 + (value - low) / span * (width - 8):.1f}"

    middle = height / 2
    parts = [f'<line class="grid" x1="0" x2="{width}" y1="{middle}" y2="{middle}"/>']
    if math.isfinite(error):
        parts.append(
            f'<line class="whisker" x1="{at(mean - error)}" x2="{at(mean + error)}" y1="{middle}" y2="{middle}"/>'
        )
    parts += [
        f'<circle class="dot" r="2.4" cx="{at(value)}" cy="{middle}"/>' for value in means if math.isfinite(value)
    ]
    if math.isfinite(mean):
        parts.append(f'<line class="mean" x1="{at(mean)}" x2="{at(mean)}" y1="1" y2="{height - 1}"/>')
    style = f"--c:var(--c{colour % COLOURS})"
    return (
        f'<svg class="strip" style="{style}" viewBox="0 0 {width} {height}" aria-hidden="true">{"".join(parts)}</svg>'
    )


# ---- what was measured beside


def beside(board: Board, score: str, outcome: str, book: Passport) -> str:
    """Tables of the other fields that rows hold numbers in, and of the end of training."""
    fields = dict.fromkeys(
        field
        for one in board.all()
        for sample in one.samples
        for field in sample.row
        if field not in KNOWN and field not in (score, outcome) and sample.episodes(field)
    )
    named = {field: f"{field}" for field in fields}
    if any(math.isfinite(sample.training()) for one in board.all() for sample in one.samples):
        named["curve"] = "the score in training, over the last fifth of the steps"
    tables = [_field(board, field, words, book) for field, words in named.items()]
    if not tables:
        return ""
    opened = " open" if len(board.tasks) <= FEW_TASKS else ""
    return (
        f'<details{opened}><summary>Measured beside it</summary><div class="beside">{"".join(tables)}</div></details>'
    )


def _marked(one: Entry, number: str) -> str:
    """A number with what is its entry's own."""
    mark = f' <small class="unlike">{escape(one.mark)}</small>' if one.mark else ""
    return f"<div>{number}{mark}</div>"


def _field(board: Board, field: str, words: str, book: Passport) -> str:
    def cell(task: str, arm: str) -> str:
        parts = []
        for one in board.entries.get((task, arm), ()):
            mean, error, count = one.over_seeds(field)
            if not count:
                continue
            how = f"mean of {words} over {plural(count, 'seed')}, plus or minus one standard error over seeds"
            text = spread(mean, error)
            parts.append(
                _marked(
                    one, book.number(entry_key(f"beside, {field}", one), text, how, one.samples, mean=mean, error=error)
                )
            )
        return f"<td>{''.join(parts) or '<span class=gap>not recorded</span>'}</td>"

    return grid(board, cell, f"{capital(words)}: mean over seeds, and one standard error of it.")


def wins(board: Board, outcome: str, book: Passport) -> str:
    """Win rates over all episodes of an entry, with Wilson's interval. Raises SuiteError for an outcome that is neither 0
    nor 1."""

    def cell(task: str, arm: str) -> str:
        parts = []
        for one in board.entries.get((task, arm), ()):
            played = [value for sample in one.samples for value in sample.episodes(outcome)]
            if not played:
                continue
            try:
                found = win_rate(played)
            except SuiteError as error:
                raise SuiteError(f"{outcome!r} of {arm} on {task} is no win rate: {error}") from error
            text = f"{found.value:.1%} [{found.low:.1%}, {found.high:.1%}]"
            how = (
                f"share of {plural(len(played), 'episode')} of {plural(len(one.samples), 'seed')} in which {outcome} is 1, with "
                "Wilson's 95% interval over episodes"
            )
            values = {"value": found.value, "low": found.low, "high": found.high}
            parts.append(
                _marked(one, book.number(entry_key(f"share of {outcome}", one), text, how, one.samples, **values))
            )
        return f"<td>{''.join(parts) or '<span class=gap>not recorded</span>'}</td>"

    caption = (
        f"Share of all episodes in which {outcome} is 1, with Wilson's 95% interval over episodes, not over seeds."
    )
    return grid(board, cell, caption)
