"""The one format: a row is a flat JSON object with what its numbers need beside them. Tables, files and pictures of rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

Row = Mapping[str, Any]
HERE = ("commit", "torch", "hardware")  # what every row says of where it was measured
UNITS = {"G": 1e9, "M": 1e6, "m": 1e-3, "u": 1e-6}


class Scaled(Formatter):
    """`str.format` with units before the format: {flops:G.1f} in 10^9, {cpu_s:m.2f} in milliseconds."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec[:1] in UNITS:
            return format(value / UNITS[format_spec[0]], format_spec[1:])
        return str(format(value, format_spec))


def cell(row: Row, column: str) -> str:
    """A column's words for a row; nothing where the row lacks a number.

    >>> cell({"flops": 2.5e9, "cpu_s": 0.0021}, "{flops:G.1f} in {cpu_s:m.2f} ms"), cell({}, "{flops:G.1f}")
    ('2.5 in 2.10 ms', '')
    """
    try:
        return Scaled().vformat(column, (), row)
    except KeyError:
        return ""


def table(rows: Sequence[Row], columns: Mapping[str, str]) -> str:
    """A Markdown table of the columns of which any row has something.

    >>> print(table([{"name": "a", "n": 1}, {"name": "b"}], {"": "{name}", "count": "{n}", "never": "{nothing}"}))
    | | count |
    |---|---|
    | a | 1 |
    | b | |
    """
    cells = {name: [cell(row, words) for row in rows] for name, words in columns.items()}
    kept = {name: column for name, column in cells.items() if any(column)}
    lines = [list(kept), *zip(*kept.values(), strict=True)]
    text = ["|" + "".join(f" {one} |" if one else " |" for one in line) for line in lines]
    return "\n".join([text[0], "|" + "---|" * len(kept), *text[1:]])


def here() -> dict[str, Any]:
    """Where a row is measured: HERE."""
    import torch
    from wm_run.machine import describe_environment

    found = describe_environment()
    return {"commit": found["commit"], "torch": torch.__version__, "hardware": found["hardware"]}


def read(file: Path) -> list[dict[str, Any]]:
    """The rows of a file, none where there is no file."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def keep(file: Path, rows: Iterable[Row], key: Sequence[str]) -> None:
    """Put rows into a file, in place of those that have the same values under the names of `key`, if it names any."""
    every = enumerate([*read(file), *rows])
    kept = {tuple(row.get(name) for name in key) if key else i: row for i, row in every}
    file.write_text("".join(json.dumps(row) + "\n" for row in kept.values()))


@dataclass(frozen=True)
class Picture:
    """A column of panels for each value of `panel`, a row for each of `y`; over the number `x`, a line for each of `line`.

    All but y are written as the columns of a table. y: the name of a number -> the words beside its axis.
    """

    panel: str
    x: str
    y: Mapping[str, str]
    line: str

    def draw(self, rows: Sequence[Row], file: Path) -> None:
        """Both scales logarithmic."""
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot

        names = list(dict.fromkeys(cell(row, self.panel) for row in rows))
        size = 3.6 * len(names) + 1, 3 * len(self.y)
        figure, panels = pyplot.subplots(len(self.y), len(names), figsize=size, squeeze=False, sharey="row")
        for column, name in zip(panels.T, names, strict=True):
            mine = [row for row in rows if cell(row, self.panel) == name]
            for panel, (quantity, words) in zip(column, self.y.items(), strict=True):
                for line in dict.fromkeys(cell(row, self.line) for row in mine):
                    points = [row for row in mine if cell(row, self.line) == line and quantity in row]
                    x, y = [float(cell(row, self.x)) for row in points], [row[quantity] for row in points]
                    panel.plot(x, y, "o-", label=line, markersize=3)
                panel.set(xscale="log", yscale="log", ylabel=words if panel in panels[:, 0] else "")
                panel.set_xscale("log", base=2)
                panel.grid(alpha=0.3)
            column[0].legend(fontsize=7)
            column[-1].set_xlabel(name)
        figure.tight_layout()
        figure.savefig(file, dpi=110)
        pyplot.close(figure)
