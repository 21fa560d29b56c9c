"""A program -> a torch.export file and an ONNX file; and both run again, from their files, on numpy arrays."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from wm_core.errors import UserError

from wm_run.programs import Program

EXTRA = ("onnx", "onnxruntime", "onnxscript")
Arrays = dict[str, NDArray[Any]]


class Runner(Protocol):
    """One program, run from its file: arrays by their names -> arrays by their names, each of the shape (...) that it has
    in the `Program`."""

    def __call__(self, given: Mapping[str, NDArray[Any]]) -> Arrays: ...


def check_installed() -> None:
    """Raises UserError where the extra is not there."""
    if missing := [name for name in EXTRA if importlib.util.find_spec(name) is None]:
        raise UserError(f"`export` needs the package {missing[0]}: install wm-run[export]")


def convert(program: Program, folder: Path) -> None:
    """Write <name>.pt2 and <name>.onnx. Raises UserError for a program that an exporter cannot take."""
    try:
        with quiet():
            exported = torch.export.export(program.module, tuple(program.inputs.values()), strict=False)
            torch.export.save(exported, folder / f"{program.name}.pt2")
            onnx = torch.onnx.export(
                exported,
                dynamo=True,
                verbose=False,
                input_names=list(program.inputs),
                output_names=list(program.outputs),
                custom_translation_table=translations(),
            )
            if onnx is None:
                raise RuntimeError("torch.onnx.export gave nothing")
            rename_inner(onnx.model, {*program.inputs, *program.outputs})
            onnx.save(folder / f"{program.name}.onnx")
    except Exception as error:
        # exporters raise what they like; the last of the chain says which operation it was
        first: BaseException = error
        while first.__cause__ is not None:
            first = first.__cause__
        why = " ".join(str(first).split())[:200]
        raise UserError(
            f"`{program.name}` of this agent cannot be exported ({type(first).__name__}: {why}): a module that other "
            "runtimes cannot run needs a stand-in, its method `exportable` (docs/export.md)"
        ) from error


def translations() -> dict[Any, Any]:
    """What torch's exporter has no words for."""
    from onnxscript import opset18

    def hypot(x: Any, y: Any) -> Any:
        return opset18.Sqrt(opset18.Add(opset18.Mul(x, x), opset18.Mul(y, y)))

    return {torch.ops.aten.hypot.default: hypot}


def rename_inner(model: Any, taken: set[str]) -> None:
    """Values between the nodes that are called like an input: the exporter names them before it takes our names, and
    gives two of them one (of `glu`, "first")."""
    for node in model.graph:
        for at, value in enumerate(node.outputs):
            if value.name in taken and not value.is_graph_output():
                value.name = f"{node.name}/{at}"


def torch_runner(folder: Path, program: Program) -> Runner:
    """The torch.export file of a program."""
    module = torch.export.load(folder / f"{program.name}.pt2").module()

    def run(given: Mapping[str, NDArray[Any]]) -> Arrays:
        tensors: list[Tensor] = [torch.from_numpy(np.ascontiguousarray(given[name])) for name in program.inputs]
        found = module(*tensors)
        return {name: value.numpy() for name, value in zip(program.outputs, found, strict=True)}

    return run


def onnx_runner(folder: Path, program: Program) -> Runner:
    """The ONNX file of a program, in onnxruntime on one thread of the CPU."""
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(folder / f"{program.name}.onnx", options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def run(given: Mapping[str, NDArray[Any]]) -> Arrays:
        found = session.run(list(program.outputs), {name: given[name] for name in names})
        return dict(zip(program.outputs, found, strict=True))

    return run


@contextmanager
def quiet() -> Iterator[None]:
    """Without what exporters say of themselves and of packages that are not needed."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
