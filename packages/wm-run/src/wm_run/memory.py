"""What memory this process can still get, by the machine and by every limit it is under; what would not fit is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from wm_core.errors import UserError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

GIGA = 1e9
ENVIRONMENT = 1000  # bytes that no environment does without, be it a row of somebody's arrays
LIMITS = {"RLIMIT_AS": ("ulimit -v", 0), "RLIMIT_DATA": ("ulimit -d", 5)}  # told as, and where statm says what counts

WORDS = (  # of torch, the system and the loader of libraries, where an allocation fails
    "can't allocate memory",
    "cannot allocate memory",
    "std::bad_alloc",
    "failed to map segment",
    "can't start new thread",
)


class Free(NamedTuple):
    """bytes: that can still be had. by: the limit that leaves no more, "" where it is the machine itself. of: whose memory."""

    bytes: int
    by: str = ""
    of: str = "memory"


def check_memory(needed: int, free: Free | None, what: str, way_out: str) -> None:
    """Raises UserError where fewer bytes are free than are sure to be asked for; None is not known.

    what: for which they are. way_out: what the user can do about it.

    >>> check_memory(10**12, Free(10**9, "ulimit -v"), "for its networks", "choose a smaller --size")
    Traceback (most recent call last):
    wm_core.errors.UserError: this run needs at least 1,000.00 GB more of memory for its networks and 1.00 GB are free under ulimit -v: choose a smaller --size, or raise that limit
    """
    if free is not None and needed > free.bytes:
        under, raising = (f" under {free.by}", "raise that limit") if free.by else ("", "end other programs")
        raise UserError(
            f"this run needs at least {needed / GIGA:,.2f} GB more of {free.of} {what} and {max(0, free.bytes) / GIGA:,.2f} GB are "
            f"free{under}: {way_out}, or {raising}"
        )


def check_environments(count: int) -> None:
    """Raises UserError for so many environments that memory cannot hold them whatever they are."""
    check_memory(count * ENVIRONMENT, free_memory(), f"for {count:,} environments", "take fewer (--envs)")


def exhausted(error: BaseException, trains: bool = True) -> str | None:
    """A sentence where an error says that memory could not be had, though nothing foresaw it; else None. trains: the command
    takes numbers of a run, which need less where they are smaller.

    >>> exhausted(ImportError("libtorch_cpu.so: failed to map segment from shared object"))[:69]
    'there is too little memory (libtorch_cpu.so: failed to map segment fr'
    >>> exhausted(ImportError("no module named torch"))
    """
    lines = str(error).strip().splitlines() or ["none is left"]
    kinds = (RuntimeError, ImportError, OSError)
    if isinstance(error, MemoryError) or isinstance(error, kinds) and any(word in lines[0].lower() for word in WORDS):
        smaller = "choose a smaller --size, --batch, --length or --envs, " if trains else ""
        return (
            f"there is too little memory ({lines[0][:200]}): {smaller}end other programs, or raise a limit (ulimit -v)"
        )
    return None


def free_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> Free | None:
    """The least that the system, this process's limits and its control groups leave; None where none of them tells."""
    found = [*_of_the_machine(proc), *_of_the_process(proc), *_of_the_groups(proc, groups)]
    return min(found, key=lambda one: one.bytes) if found else None


def _of_the_machine(proc: Path) -> Iterator[Free]:
    file = proc / "meminfo"
    lines = dict(line.split(":") for line in file.read_text().splitlines() if ":" in line) if file.is_file() else {}
    if "MemAvailable" in lines:
        yield Free(int(lines["MemAvailable"].split()[0]) * 1024)


def _of_the_process(proc: Path) -> Iterator[Free]:
    """Of addresses, where they are limited: what is mapped counts, be it used or not."""
    statm = proc / "self/statm"
    if resource is None or not statm.is_file():
        return
    pages = [int(word) for word in statm.read_text().split()]
    for name, (command, column) in LIMITS.items():
        limit = resource.getrlimit(getattr(resource, name))[0]
        if limit != resource.RLIM_INFINITY:
            yield Free(limit - pages[column] * resource.getpagesize(), command)


def _of_the_groups(proc: Path, groups: Path) -> Iterator[Free]:
    """Of the process's control groups and of those around them, of both versions."""
    for folder in dict.fromkeys(_folders(proc, groups)):
        for most, used, caches in (
            ("memory.max", "memory.current", ("inactive_file", "active_file")),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
        ):
            files = [folder / name for name in (most, used, "memory.stat")]
            if not all(file.is_file() for file in files):
                continue
            limit, current, stat = (file.read_text() for file in files)
            if limit.strip() != "max":
                counted = dict(line.split() for line in stat.splitlines())
                cached = sum(int(counted.get(name, 0)) for name in caches)  # given back when needed
                yield Free(int(limit) - int(current) + cached, "its control group")


def _folders(proc: Path, groups: Path) -> Iterator[Path]:
    """Where control groups that hold this process may say something; inside a container its own is at the top."""
    yield from (groups, groups / "memory")
    file = proc / "self/cgroup"
    for line in file.read_text().splitlines() if file.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = groups / "memory" if controllers else groups
        inner = top / path.strip("/")
        yield from (one for one in (inner, *inner.parents) if one.is_relative_to(top))
