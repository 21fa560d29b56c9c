"""How this process was started -> the words that start its program again: in the next step, in `--help`, for other ranks.

`uv run apps/po_dreamer`, `uv run -m po_dreamer`, `python -m po_dreamer` and `.venv/bin/po-dreamer` are one app; only the
words that were typed are known to work where they were typed.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PROGRAM = "WM_PROGRAM"  # a process that was started for another one speaks of that one's command


def program(name: str, arguments: Sequence[str]) -> str:
    """What stands before `arguments` on this user's command line, quoted; `name` where `arguments` were never typed.

    >>> program("po_dreamer", ["nobody", "typed", "this"])
    'po_dreamer'
    """
    if given := os.environ.get(PROGRAM):
        return given
    own, script = before(sys.orig_argv, arguments), sys.argv[0]
    if own is None or list(sys.argv[1:]) != list(arguments):
        return name
    return shlex.join(words(own, script, before(parent(), arguments), os.environ))


def again(module: str, arguments: Sequence[str]) -> list[str]:
    """What follows `sys.executable` to start this program once more, arguments left out.

    That is how this process itself was started. Where `arguments` came from a caller of `main` it is `-m module`.
    """
    own = before(sys.orig_argv, arguments)
    started_so = own is not None and list(sys.argv[1:]) == list(arguments) and len(own) > 1
    return own[1:] if own is not None and started_so else ["-m", module]


def before(line: Sequence[str], arguments: Sequence[str]) -> list[str] | None:
    """The words of a command line before its arguments; None where it does not end with them.

    >>> before(["python", "-m", "r2i", "eval", "D"], ["eval", "D"]), before(["sh", "-c", "r2i eval D"], ["eval", "D"])
    (['python', '-m', 'r2i'], None)
    """
    at = len(line) - len(arguments)
    return list(line[:at]) if at > 0 and list(line[at:]) == list(arguments) else None


def words(
    own: Sequence[str],
    script: str,
    above: Sequence[str] | None,
    environment: Mapping[str, str],
    prefix: str = sys.prefix,
) -> list[str]:
    """The words to type, of those with which Python was started (`own`), of sys.argv[0] and of the process above.

    uv puts the environment's programs on the path of what it runs, and nowhere else: behind it, its own words are the ones.

    >>> words(["/env/bin/python3", "apps/r2i"], "apps/r2i", ["uv", "run", "--no-sync", "apps/r2i"], {}, "/env")
    ['uv', 'run', '--no-sync', 'apps/r2i']
    >>> behind = {"UV_INTERNAL__PARENT_INTERPRETER": "/opt/python3", "PATH": "/env/bin:/bin"}
    >>> words(["/env/bin/python3", "apps/r2i"], "apps/r2i", ["/opt/uv", "run", "apps/r2i"], behind, "/env")
    ['/opt/python3', '-m', 'uv', 'run', 'apps/r2i']
    >>> words(["/env/bin/python3", "/env/bin/r2i"], "/env/bin/r2i", None, {"UV_RUN_RECURSION_DEPTH": "1"}, "/env")[-2:]
    ['run', 'r2i']
    """
    installed = Path(script).parent == Path(prefix) / "bin"
    if above is not None and Path(above[0]).name == "uv":
        return [*_uv(environment, prefix, above[0]), *above[1:]]
    if above is None and "UV_RUN_RECURSION_DEPTH" in environment:  # uv, where no process above can be looked at
        uv = _uv(environment, prefix)
        return [*uv, "run", Path(script).name] if installed else [*uv, "run", *own[1:]]
    if installed and "-m" not in own:
        found = shutil.which(Path(script).name)
        return [Path(script).name if found and Path(found).absolute() == Path(script).absolute() else script]
    return list(own)


def parent() -> list[str]:
    """The command line of the process above, where the system shows it (Linux); [] elsewhere."""
    try:
        text = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(word) for word in text.split(b"\0")[:-1]]


def _uv(environment: Mapping[str, str], prefix: str, called: str = "") -> list[str]:
    """uv itself, or the Python as a module of which it was typed: it tells its children which.

    called: the first word of uv's command line, where that can be seen. A Python that starts uv always gives its path;
    `uv` alone was typed, perhaps inside a shell that such a Python had started.
    """
    python = environment.get("UV_INTERNAL__PARENT_INTERPRETER")
    if python and called != "uv":
        return [_by_name(python, environment.get("PATH", os.defpath), prefix), "-m", "uv"]
    return ["uv"] if shutil.which("uv") else ["python3", "-m", "uv"]


def _by_name(python: str, path: str, prefix: str) -> str:
    """A Python's name where the user's path leads to it, which is the path without what uv puts before it; else its path.

    >>> _by_name("/opt/python3", "/env/bin:/bin", "/env")
    '/opt/python3'
    """
    theirs = [folder for folder in path.split(os.pathsep) if Path(folder) != Path(prefix) / "bin"]
    name = Path(python).name
    found = next((each for folder in theirs if os.access(each := Path(folder) / name, os.X_OK)), None)
    return name if found is not None and found.absolute() == Path(python).absolute() else python
