"""What a detector costs: processor seconds of a training step for each crop, and of an answer for each megapixel.

    python benchmarks/detectors.py [--quick] [--kind NAME ...] [--crop-px 192]

Variants of Mask R-CNN side by side, random weights, one thread, bfloat16 where the processor has it: the shipped one's
settings, the same with one thing changed, and torchvision's standard widths. Crops hold made-up nuclei, as many as real
ones. Processor time, the least of `--repeats` turns: what else runs on the machine hardly counts. Answers are timed
with few proposals, as a trained network has them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from images import touching_field
from timing import arguments, row

CROPS = 8
SHIPPED = "conf/train/mask_rcnn_small.yaml"
CHANGES: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "finest_px 4": {"finest_px": 4, "anchors_px": ((8,), (16,), (32,), (64,))},
    "pyramid and masks 128 wide": {"pyramid_width": 128, "mask_width": 128},
    "group norm in the mask head": {"head_norm": "group"},
    "four stages": {"stages": 4, "anchors_px": ((8,), (16,), (32,), (64,), (128,), (256,))},
    "two anchors a place": {"anchors_px": ((6, 8), (12, 16), (24, 32), (48, 64), (96, 128))},
    "resnet50, standard widths": {
        **{"backbone": "resnet50", "stages": 4, "finest_px": 4, "pyramid_width": 256, "mask_width": 256},
        **{"box_width": 1024, "anchors_px": ((8,), (16,), (32,), (64,), (128,))},
    },
}


def least_s(action: Callable[[], object], repeats: int) -> float:
    """Processor seconds of an action, the least of some turns; one more goes before."""
    action()
    times = []
    for _ in range(repeats):
        begun = time.process_time()
        action()
        times.append(time.process_time() - begun)
    return min(times)


class Case:
    """One variant: its network, a batch of crops, and a step."""

    def __init__(self, change: dict[str, Any], side_px: int) -> None:
        import torch

        from slidebatch.config import read
        from slidebatch.models import networks
        from slidebatch.models.engines import has_bfloat16
        from slidebatch.training import detectors
        from slidebatch.training.optimise import optimiser
        from slidebatch.training.spec import TrainSpec
        from slidebatch.training.truths import truth

        torch.manual_seed(0)
        self.torch, self.family = torch, detectors
        self.spec = read(TrainSpec, SHIPPED, [])
        self.network = networks.build("mask_rcnn", self.spec.network.settings | change)
        detectors.prepare(self.network, self.spec)
        self.network.to(memory_format=torch.channels_last).train()
        self.optimiser = optimiser(self.network, self.spec.optimiser)
        self.precision = torch.bfloat16 if has_bfloat16("cpu") else torch.float32
        labels = [touching_field(side_px, spacing_px=32, seed=i) for i in range(CROPS)]
        shades = torch.stack([torch.from_numpy(0.2 + 0.5 * (found > 0)).float() for found in labels])
        images = shades[:, None].expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        self.batch = [images, [truth(found, 12) for found in labels]]

    def step(self) -> None:
        """One step of the optimiser."""
        torch = self.torch
        with torch.autocast("cpu", self.precision, enabled=self.precision is not torch.float32):
            losses = self.family.losses(self.network, self.batch, self.spec)
        self.optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()

    def answer(self) -> None:
        """What is found in one crop."""
        from slidebatch.models.detector import answer

        answer(self.network, self.batch[0][:1], str(self.precision).removeprefix("torch."))

    def few_proposals(self) -> None:
        """Limits as a trained network meets them."""
        from slidebatch.models.proposals import Limits

        self.network.eval()
        self.network.rpn.limits = Limits(2000, 200)


def main() -> None:
    """Print a row for each variant."""
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--kind", action="append", choices=list(CHANGES), help="a variant; repeatable; default: all")
    parser.add_argument("--crop-px", type=int, default=192, help="side of a crop")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    side_px = 64 if options.quick else options.crop_px
    row("network", "parameters, M", "training: s a crop", "answers: s a megapixel")
    row(*["---"] * 4)
    for name in options.kind or list(CHANGES)[: 1 if options.quick else None]:
        case = Case(CHANGES[name], side_px)
        size = sum(p.numel() for p in case.network.parameters()) / 1e6
        step = least_s(case.step, options.repeats) / CROPS
        case.few_proposals()
        answer = least_s(case.answer, options.repeats) / (side_px**2 / 1e6)
        row(name, f"{size:.1f}", f"{step:.3f}", f"{answer:.2f}")


if __name__ == "__main__":
    main()
