"""The config's section `model`: which network, with which weights, on what device."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from slidebatch.spec import Spec

GPU_BATCH = 8


class ModelSpec(Spec):
    """A network to run. In the config a bare string stands for its name: `model: small_unet`."""

    name: str = Field(
        default="small_unet",
        description="Registered name of the network, or of shipped weights; with own weights their card decides.",
    )
    weights: str | None = Field(
        default=None,
        description="Own weights, a .safetensors file with its card (.json) beside it; none: the shipped ones.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where networks run; auto takes a GPU if there is one."
    )
    threads: PositiveInt = Field(default=1, description="CPU threads per network; part of the fingerprint.")
    batch: PositiveInt | Literal["auto"] = Field(
        default="auto",
        description="Patches per forward pass; auto is 1 on a CPU, where dense networks take one "
        "patch at a time in any case.",
    )
    engine: Literal["auto", "eager", "openvino", "onnx"] = Field(
        default="auto",
        description="What computes the network: PyTorch (eager), OpenVINO or ONNX Runtime; auto is OpenVINO on a "
        "CPU where it is installed, else PyTorch. Part of the fingerprint.",
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="Arithmetic of the network; auto is bfloat16 where the processor has it, which is twice as fast "
        "and changes class maps by a few grey levels of 255, and float16 on GPUs that have only that. Part of the "
        "fingerprint.",
    )
    tta: Literal["none", "flips", "d4"] = Field(
        default="none",
        description="Test-time augmentation: mean over mirrored views (flips, four times the cost) or over mirrored "
        "and turned ones (d4, eight times).",
    )
    settings: dict[str, Any] = Field(default={}, description="Settings of this one network (those of the oracles).")

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        """What `models.card` and `models.load` take as settings: the network's own, and its weights."""
        return dict(self.settings) | ({} if self.weights is None else {"weights": self.weights})

    def batch_on(self, device: str) -> int:
        """Patches per forward pass on a device, "cpu" or "cuda"."""
        if self.batch != "auto":
            return self.batch
        return GPU_BATCH if device == "cuda" else 1
