"""Whether the module that a task names may be imported: on a stranger's word, that of a published agent, none is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

TRUST = "ENV_ADAPTERS_TRUST"  # read where a task's module is imported: see env_adapters.modules; workers inherit it


@contextmanager
def on_a_strangers_word(stranger: bool) -> Iterator[None]:
    """Inside, a task imports no module that its name names; unless the user said that they trust it (`--trust`).

    >>> with on_a_strangers_word(True):
    ...     os.environ[TRUST]
    '0'
    """
    before = os.environ.get(TRUST)
    if not stranger or before == "1":
        yield
        return
    os.environ[TRUST] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[TRUST]
        else:
            os.environ[TRUST] = before
