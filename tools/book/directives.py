"""What a page of docs/ asks for in comments, which GitHub does not show, becomes text:

<!-- include apps/dreamer/README.md#departures -->          a section of another file, without its heading
<!-- include apps/dreamer/README.md -->                     the whole file, without its title
<!-- code wm_core.kl.BalancedKL.__call__ -->                the lines that define a name
<!-- code wm_core.kl.BalancedKL.__call__ from `dyn =` to `rep =` -->    some of them

and $x$, $$x$$ become MathML, which browsers draw without a script.
"""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert
from markdown.extensions.toc import slugify  # type: ignore[import-untyped]

from book import places, source

INCLUDE = re.compile(r"^<!-- include (\S+?)(?:#(\S+))? -->$", re.MULTILINE)
CODE = re.compile(r"^<!-- code (\S+)(?: from `([^`]+)`)?(?: to `([^`]+)`)? -->$", re.MULTILINE)
HEADING = re.compile(r"^(#+) +(.*?) *#*$")
BLOCK = re.compile(r"^\$\$(.+?)\$\$$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<![\\$\w])\$(?=\S)([^$\n]+?)(?<=\S)\$(?![\d$])")


def headings(text: str) -> list[tuple[int, int, str]]:
    """(line, level, words) of every heading outside code."""
    found = []
    for number, (line, fenced) in enumerate(places.lines(text)):
        if not fenced and (one := HEADING.match(line)):
            found.append((number, len(one[1]), one[2]))
    return found


def section(text: str, anchor: str) -> str:
    r"""What stands under a heading, up to the next of its level or above; without anchor what stands under the title.

    >>> section("# T\na\n## B c\nb\n### D\nd\n## E\ne", "b-c")
    'b\n### D\nd'
    """
    every = headings(text)
    slugs = [slugify(re.sub(r"`", "", words), "-") for _, _, words in every]
    if anchor and anchor not in slugs:
        raise source.Gone(f"no heading is #{anchor}; there are {', '.join(slugs)}")
    at = slugs.index(anchor) if anchor else 0
    line, level, _ = every[at]
    end = next((number for number, other, _ in every[at + 1 :] if other <= level), None)
    return "\n".join(text.split("\n")[line + 1 : end]).strip("\n")


def included(text: str, uri: str) -> str:
    """The page with every include in its place, a level below the heading it stands under."""

    def one(found: re.Match[str]) -> str:
        path, anchor = found[1], found[2] or ""
        above = [level for _, level, _ in headings(text[: found.start()])]
        try:
            taken = section((places.ROOT / path).read_text(), anchor)
        except (OSError, source.Gone) as error:
            raise source.Gone(f"{uri}: include {path}: {error}") from error
        inner = [level for _, level, _ in headings(taken)]
        shift = (above[-1] if above else 1) + 1 - min(inner) if inner else 0
        return places.relinked(shifted(taken, shift), path, uri)

    return INCLUDE.sub(one, text)


def shifted(text: str, by: int) -> str:
    """Headings `by` levels lower."""
    out = []
    for line, fenced in places.lines(text):
        heading = None if fenced else HEADING.match(line)
        out.append(f"{'#' * (len(heading[1]) + by)} {heading[2]}" if heading else line)
    return "\n".join(out)


def coded(text: str, uri: str) -> str:
    """The page with the lines of the code in the place of every `code`."""

    def one(found: re.Match[str]) -> str:
        name = found[1]
        try:
            shown, (file, _) = source.lines(name, found[2] or "", found[3] or ""), source.found(name)
        except source.Gone as error:
            raise source.Gone(f"{uri}: {error}") from error
        module = ".".join(file.with_suffix("").relative_to(next(p for p in file.parents if p.name == "src")).parts)
        what = name.removeprefix(f"{module.removesuffix('.__init__')}.")
        where = file.relative_to(places.ROOT)
        return f'```python title="{what} in {where}"\n{shown}\n```'

    return CODE.sub(one, text)


def apart(text: str) -> str:
    r"""A blank line before a list or a table that follows a paragraph directly: GitHub asks for none, Markdown does.

    >>> apart("a\n- b\n- c\nd\n| x | y |\n|-|-|")
    'a\n\n- b\n- c\nd\n\n| x | y |\n|-|-|'
    """
    out: list[str] = []
    item, row = re.compile(r"^(?:[-*+]|\d+\.) "), re.compile(r"^\|")
    for line, fenced in places.lines(text):
        before = out[-1] if out else ""
        if not fenced and before.strip() and not HEADING.match(before):
            starts = item.match(line) and not item.match(before) and not before.startswith((" ", "\t", "|"))
            inside = any(item.match(one) for one in _paragraph(out))
            if (starts and not inside) or (row.match(line) and not row.match(before)):
                out.append("")
        out.append(line)
    return "\n".join(out)


def _paragraph(out: list[str]) -> list[str]:
    """The lines since the last blank one."""
    found: list[str] = []
    for line in reversed(out):
        if not line.strip():
            break
        found.append(line)
    return found


def mathematics(text: str) -> tuple[str, list[str]]:
    """The page with a placeholder for each formula, and the formulas as MathML: Markdown must not read them."""
    kept: list[str] = []

    def keep(tex: str, display: str) -> str:
        kept.append(spaced(convert(tex.strip(), display=display)))
        return f"FORMULA{len(kept) - 1}END"

    text = _between_fences(text, lambda block: BLOCK.sub(lambda f: f"\n{keep(f[1], 'block')}\n", block))
    return places.outside_code(text, lambda line: INLINE.sub(lambda f: keep(f[1], "inline"), line)), kept


def spaced(formula: str) -> str:
    """MathML with room about what the converter takes for a letter, and none about bars that are brackets."""
    formula = formula.replace("<mi>&#x0007E;</mi>", '<mo lspace="0.28em" rspace="0.28em">&#x0223C;</mo>')
    return formula.replace('<mo stretchy="false">&#x0007C;', '<mo stretchy="false" lspace="0" rspace="0">&#x0007C;')


def _between_fences(text: str, change: object) -> str:
    assert callable(change)
    out, block = [], list[str]()
    for line, fenced in [*places.lines(text), ("", True)]:
        if fenced:
            out += [change("\n".join(block))] if block else []
            block = []
            out.append(line)
        else:
            block.append(line)
    return "\n".join(out[:-1])


def drawn(page: str, formulas: list[str]) -> str:
    """HTML with the formulas in their places."""
    page = re.sub(r"<p>\s*(FORMULA\d+END)\s*</p>", r'<div class="formula" tabindex="0">\1</div>', page)
    return re.sub(r"FORMULA(\d+)END", lambda found: formulas[int(found[1])], page)


def titled(text: str) -> str:
    """The words of the first heading, for the navigation."""
    every = headings(text)
    return html.unescape(re.sub(r"[`*]", "", every[0][2])) if every else ""
