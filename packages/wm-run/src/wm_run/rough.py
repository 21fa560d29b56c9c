"""Networks whose weights are drawn in a fraction of the time: what an update takes does not depend on them."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

WIDTH = 3**0.5  # deviations: a uniform distribution so wide has the same one


class Rough(TorchFunctionMode):
    """Inside, normal distributions are uniform ones of the same deviation. Truncated at two deviations, as the weights of
    most networks here are, a normal one is drawn again and again until none lies outside: for the papers' networks that
    takes seconds, more than the updates of an estimate.

    >>> import torch
    >>> with Rough():
    ...     weight = torch.nn.init.trunc_normal_(torch.empty(10_000), std=0.1, a=-0.2, b=0.2)
    >>> 0.17 < float(weight.abs().max()) < 0.1733 and abs(float(weight.std()) - 0.1) < 0.005
    True
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not Tensor.normal_:
            return func(*args, **kwargs)
        given = dict(zip(("tensor", "mean", "std"), args, strict=False)) | kwargs
        mean, reach = given.get("mean", 0.0), WIDTH * given.get("std", 1.0)
        return given["tensor"].uniform_(mean - reach, mean + reach, generator=given.get("generator"))
