"""An account without a home directory, as of a container that runs under a bare number."""

from pathlib import Path

import pytest
from env_adapters import TaskError, meltingpot_home, smax_program


def test_what_would_be_kept_at_home_is_not_kept_or_asks_for_a_place(monkeypatch, tmp_path):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", staticmethod(nowhere))
    for name in ("XDG_CACHE_HOME", smax_program.CACHE):
        monkeypatch.delenv(name, raising=False)
    assert smax_program.cache_folder() is None
    with pytest.raises(TaskError, match="set XDG_CACHE_HOME"):
        meltingpot_home.folder()
    monkeypatch.setenv(smax_program.CACHE, str(tmp_path))
    assert smax_program.cache_folder().parent == tmp_path
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert meltingpot_home.folder() == tmp_path / "env-adapters" / "meltingpot"
