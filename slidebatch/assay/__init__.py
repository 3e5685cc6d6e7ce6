"""How good an assay is, from one number per well: separation of controls, and response to doses.

Pure functions of arrays; `slidebatch.plate_assay` takes the numbers from results. docs/measurements.md says what they
mean.
"""

from __future__ import annotations

from slidebatch.assay.dose import FourParameters, dose_medians, ec50_interval, four_parameter_fit, spearman
from slidebatch.assay.quality import bootstrap, robust_zprime, ssmd, zprime
from slidebatch.assay.spec import AssaySpec

__all__ = [
    "AssaySpec",
    "FourParameters",
    "bootstrap",
    "dose_medians",
    "ec50_interval",
    "four_parameter_fit",
    "robust_zprime",
    "spearman",
    "ssmd",
    "zprime",
]
