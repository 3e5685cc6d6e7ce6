"""Libraries that compute a network's forward pass, and which one is taken.

    eager      PyTorch, layer by layer; on a GPU the only one
    openvino   OpenVINO, on a CPU
    onnx       ONNX Runtime, on a CPU, in float32

Each gives a pixel the same bits whatever the patch around it (`docs/models/inference.md` has the figures); between
engines and precisions answers differ by rounding, so both are part of a network's digest. A lone image runs through
each by the same routines as any other, but for one exception in PyTorch, which `OneDnn` goes around.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor, nn

from slidebatch.errors import ModelError
from slidebatch.models.blocks import ready

Engine = Literal["eager", "openvino", "onnx"]
Precision = Literal["float32", "bfloat16", "float16"]

PACKAGES: dict[str, tuple[str, ...]] = {
    "eager": (),
    "openvino": ("openvino",),
    "onnx": ("onnxruntime", "onnx"),
}
"""What each engine needs besides PyTorch; the first is the one whose version counts."""

KEPT_SHAPES = 4
"""Patch shapes that stay compiled; a run has one, or two with quarter turns."""

Forward = Callable[[Tensor], Tensor]
"""(N, channels, Y, X) float32 -> (N, classes, Y, X) float32 logits, both on the engine's device."""


@dataclass(frozen=True)
class Choice:
    """An engine and the precision of its arithmetic."""

    engine: Engine
    precision: Precision

    @property
    def release(self) -> str:
        """The engine's version; PyTorch's own is told besides."""
        return version(PACKAGES[self.engine][0]) if PACKAGES[self.engine] else ""


def choose(engine: str, precision: str, device: str, unrolled: bool) -> Choice:
    """What "auto" becomes on a device ("cpu", "cuda"); anything else is checked.

    The order is that of the table in docs/models/inference.md: bfloat16 where the processor computes in it, float16 on
    a GPU that has it alone, and OpenVINO where it is installed. ModelError where what is asked for is not installed or
    cannot run here.
    """
    if precision == "auto":
        precision = "float32" if engine == "onnx" else _narrowest(device)
    elif precision == "bfloat16" and not has_bfloat16(device):
        others = "float32" if device == "cpu" else "float16 or float32"
        raise ModelError(f"model.precision is bfloat16, but this {device} has no instructions for it; use {others}.")
    elif precision == "float16" and device == "cpu":
        raise ModelError("model.precision is float16, which only GPUs compute in; use bfloat16 or float32 on a CPU.")
    if engine == "auto":
        engine = "openvino" if device == "cpu" and not unrolled and installed("openvino") else "eager"
    _refuse(engine, precision, device, unrolled)
    return Choice(engine, precision)  # type: ignore[arg-type]


def _narrowest(device: str) -> Precision:
    """The fastest arithmetic that a device has; of those with 16 bits the one with the range of float32 is safer."""
    if has_bfloat16(device):
        return "bfloat16"
    return "float16" if has_float16(device) else "float32"


def _refuse(engine: str, precision: str, device: str, unrolled: bool) -> None:
    if engine == "eager":
        return
    if device != "cpu":
        raise ModelError(f"model.engine {engine} runs on a CPU and the device is {device}; use auto or eager.")
    if unrolled:
        raise ModelError(f"model.engine {engine} cannot run a network that loops over its own patches; use eager.")
    if not installed(engine):
        raise ModelError(
            f"model.engine is {engine}, but {' or '.join(PACKAGES[engine])} is not installed; "
            "install slidebatch[fast], or use auto."
        )
    if engine == "onnx" and precision != "float32":
        raise ModelError(
            "model.engine onnx computes in float32 and model.precision is bfloat16; use openvino or eager."
        )


def installed(engine: str) -> bool:
    """Whether an engine's packages are there; imports none."""
    return all(find_spec(name) is not None for name in PACKAGES[engine])


def has_bfloat16(device: str) -> bool:
    """Whether a device multiplies in bfloat16, and does not only imitate it.

    Where this machine has no GPU, one elsewhere is meant; it is taken to, and refuses for itself if it does not.
    """
    if device != "cpu":
        return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)
    told = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(told.get("avx512_bf16") or told.get("amx_bf16"))


def has_float16(device: str) -> bool:
    """Whether a device multiplies matrices of float16: GPUs since capability 7.0, whose tensor cores do."""
    return device != "cpu" and torch.cuda.is_available() and torch.cuda.get_device_capability() >= (7, 0)


def forward(network: nn.Module, choice: Choice, device: str, threads: int) -> Forward:
    """The forward pass of a trained network by an engine. `network` is left as it is.

    On a CPU give it one image at a time: batch mates would choose other routines, with other bits.
    """
    if choice.engine == "openvino":
        return _openvino(ready(network), choice.precision, threads)
    if choice.engine == "onnx":
        return _onnx(ready(network), threads)
    return _eager(ready(network), choice.precision, device)


# PyTorch


class OneDnn(nn.Module):
    """A convolution that always takes oneDNN's routine.

    Left to itself PyTorch takes another for a lone small image (at most 20,480 values) and for 1 x 1 filters, whose
    bits differ: then a pixel's answer would depend on the size of its patch.
    """

    def __init__(self, plain: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = plain.weight, plain.bias
        assert isinstance(plain.padding, tuple)
        self.padding, self.stride = plain.padding, plain.stride
        self.dilation, self.groups = plain.dilation, plain.groups

    def forward(self, image: Tensor) -> Tensor:
        return torch.mkldnn_convolution(
            image, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups
        )


def _eager(network: nn.Module, precision: Precision, device: str) -> Forward:
    """All of the network in one arithmetic, its sums in float32 inside each convolution; answers in float32.

    Autocast would come to the same: once batch norm is folded, convolutions are all that it would cast, and it would
    cast the weights anew for every batch.
    """
    kind: torch.dtype = getattr(torch, precision)
    placed = network.to(device=device, dtype=kind).to(memory_format=torch.channels_last)
    if device == "cpu" and torch.backends.mkldnn.is_available():
        _to_onednn(placed)

    def run(image: Tensor) -> Tensor:
        return placed(image.to(kind).contiguous(memory_format=torch.channels_last)).float()

    return run


def _to_onednn(network: nn.Module) -> None:
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d):
                setattr(module, name, OneDnn(child))


# OpenVINO


def _openvino(network: nn.Module, precision: Precision, threads: int) -> Forward:
    import openvino

    graph = _openvino_graph(network)
    core = openvino.Core()
    hints = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # workers would all be pinned to the same cores
    }

    @lru_cache(maxsize=KEPT_SHAPES)
    def compiled(shape: tuple[int, ...]) -> Any:
        graph.reshape(list(shape))
        return core.compile_model(graph, "CPU", hints).create_infer_request()

    def run(image: Tensor) -> Tensor:
        request = compiled(tuple(image.shape))
        request.infer({0: image.contiguous().numpy()}, share_inputs=True)
        return torch.from_numpy(request.get_output_tensor(0).data.copy())

    return run


def _openvino_graph(network: nn.Module) -> Any:
    """The network as OpenVINO's graph, of any image size. By the front end itself: `convert_model` counts its users."""
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    front = FrontEndManager().load_by_framework("pytorch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch calls tracing old; OpenVINO takes nothing newer of any size
        example = (_example(network),)
        decoder = TorchScriptPythonDecoder(network, example_input=example, trace_kwargs={"check_trace": False})
        return front.convert(front.load(decoder))


# ONNX Runtime


def _onnx(network: nn.Module, threads: int) -> Forward:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(_onnx_graph(network), options, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"image": image.contiguous().numpy()})[0])

    return run


def _onnx_graph(network: nn.Module) -> bytes:
    """The network in ONNX's format, of any image size."""
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        path = Path(folder) / "network.onnx"
        warnings.simplefilter("ignore")  # the newer exporter needs two packages more
        torch.onnx.export(
            network,
            (_example(network),),
            path,
            dynamo=False,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {2: "y", 3: "x"}, "logits": {2: "y", 3: "x"}},
        )
        return path.read_bytes()


def _example(network: nn.Module) -> Tensor:
    """An image to trace with: any size will do that every stride divides."""
    first = next(m for m in network.modules() if isinstance(m, nn.Conv2d))
    return torch.zeros(1, first.in_channels, 128, 128)
