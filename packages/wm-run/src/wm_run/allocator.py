"""glibc gives large blocks back to the kernel at every free and gets them anew, zeroed page by page, at the next update.

An update frees and allocates gigabytes of the same sizes, so without this a tenth of its CPU time and more is the
kernel's. GPUs have torch's own caching allocator and do not need it.
"""

from __future__ import annotations

import ctypes
import gc
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h


def keep_pages() -> bool:
    """Let freed memory stay with the process; False where the C library is not glibc. Peak memory hardly changes."""
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    wishes = ((_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, (1 << 31) - 1), (_TOP_PAD, 1 << 26))
    return all(libc.mallopt(name, value) == 1 for name, value in wishes)


def give_back() -> bool:
    """Hand what is free to the kernel once, after work that needed far more than what follows; False without glibc.

    After `keep_pages` nothing else does, and a process would keep until its end what it measured for a moment.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    gc.collect()
    return ctypes.CDLL(None).malloc_trim(0) == 1
