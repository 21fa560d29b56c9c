"""What counts of the time of a run's processes against its limit: what they computed, so that a full machine cuts no run short.

Of a process that waits, for its turn on a core or for whatever else, a quarter of the time counts, so that one that hangs is
ended all the same. Where the system does not tell what processes have computed (only Linux's /proc does), all time counts.
"""

from __future__ import annotations

import os
from pathlib import Path

PATIENCE = 4.0  # times its limit that a run may take by the clock
PROC = Path("/proc")


def counted(wall: float, cpu: float | None) -> float:
    """Seconds that count, of these by the clock and these of all cores together.

    >>> counted(100.0, 100.0), counted(100.0, 350.0), counted(100.0, 50.0), counted(100.0, 0.0), counted(100.0, None)
    (100.0, 100.0, 50.0, 25.0, 100.0)
    """
    return wall if cpu is None else max(min(cpu, wall), wall / PATIENCE)


def cpu_of(session: int) -> float | None:
    """CPU seconds so far of all processes of a session, with those of their children that have ended; None where the system
    does not tell, or where there is none any more."""
    found, tick = [], os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0
    for stat in PROC.glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()  # a name may have blanks and brackets
        except (OSError, UnicodeDecodeError):  # it has ended meanwhile
            continue
        if int(fields[3]) == session:
            found.append(sum(map(int, fields[11:15])))
    return sum(found) / tick if found else None


class ProcessTime:
    """Of a process that is there, and of the session that it leads; looked at now and then."""

    def __init__(self, leader: int) -> None:
        self._leader, self._wall, self._cpu = leader, 0.0, 0.0
        self.seconds = 0.0

    def look(self, wall: float) -> float:
        """What counts after so long by the clock. Once nobody is there to ask, the time since the last look counts whole."""
        cpu = cpu_of(self._leader)
        cpu = self._cpu + wall - self._wall if cpu is None else max(cpu, self._cpu)
        self._wall, self._cpu = wall, cpu
        self.seconds = max(self.seconds, counted(wall, cpu))
        return self.seconds
