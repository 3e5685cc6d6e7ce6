"""Makes a process without a GPU take the device "cuda" for one that it has: for networks that need none, as oracles.

As a module that Dask's workers load at their start (`distributed.worker.preload`) it does so in them.
"""

from __future__ import annotations

from slidebatch import models

models.pick_device = lambda device: device
