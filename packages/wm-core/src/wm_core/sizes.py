"""The model sizes of DreamerV3: deter = 8 hidden, classes = depth = hidden / 16, units = hidden; 32 latents always."""

from __future__ import annotations

from collections.abc import Mapping


def size(hidden: int) -> dict[str, int]:
    """The fields of one size.

    >>> size(256)
    {'deter': 2048, 'hidden': 256, 'classes': 16, 'depth': 16, 'units': 256}
    """
    return {"deter": 8 * hidden, "hidden": hidden, "classes": hidden // 16, "depth": hidden // 16, "units": hidden}


SIZES: Mapping[str, Mapping[str, int]] = {
    "1m": size(64),
    "12m": size(256),
    "25m": size(384),
    "50m": size(512),
    "100m": size(768),
    "200m": size(1024),
    "400m": size(1536),
}
