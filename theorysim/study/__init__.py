"""Studies: load, run, verify and draw them; the page that shows them; the works they name.

Loaded when first named, so that the command line starts fast and a study depends only on the helpers that it names.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from theorysim.estimate import Estimate as Estimate
    from theorysim.estimate import exponent as exponent
    from theorysim.estimate import extrapolate as extrapolate
    from theorysim.figure import PALETTE as PALETTE
    from theorysim.figure import page as page
    from theorysim.figure import save as save
    from theorysim.figure import style as style
    from theorysim.study.claim import Claim as Claim
    from theorysim.study.claim import agrees as agrees
    from theorysim.study.claim import exceeds as exceeds
    from theorysim.study.claim import exponent_agrees as exponent_agrees
    from theorysim.study.claim import exponents as exponents
    from theorysim.study.claim import lies_below as lies_below
    from theorysim.study.claim import limit_agrees as limit_agrees
    from theorysim.study.claim import mean_and_error as mean_and_error
    from theorysim.study.claim import mean_estimate as mean_estimate
    from theorysim.study.claim import mean_of_points as mean_of_points
    from theorysim.study.claim import scatter_agrees as scatter_agrees
    from theorysim.study.claim import stays_below as stays_below
    from theorysim.study.dataset import Digits as Digits
    from theorysim.study.dataset import digits as digits
    from theorysim.study.load import Study as Study
    from theorysim.study.load import StudyError as StudyError
    from theorysim.study.merge import stack as stack
    from theorysim.study.merge import tree as tree
    from theorysim.study.notebook import set_up as set_up
    from theorysim.study.panel import cover_points as cover_points
    from theorysim.study.panel import density_points as density_points
    from theorysim.study.panel import drawn as drawn
    from theorysim.study.panel import line_and_points as line_and_points
    from theorysim.study.panel import mean_and_band as mean_and_band
    from theorysim.study.panel import narrow_and_wide as narrow_and_wide
    from theorysim.study.panel import percentile_bar as percentile_bar
    from theorysim.study.panel import plain_ticks as plain_ticks
    from theorysim.study.panel import points as points
    from theorysim.study.panel import power_line as power_line
    from theorysim.study.panel import rms_points as rms_points
    from theorysim.study.panel import width_axis as width_axis
    from theorysim.study.pipeline import Outcome as Outcome
    from theorysim.study.pipeline import run as run
    from theorysim.study.references import cite as cite

HOMES = {
    **dict.fromkeys(("Estimate", "exponent", "extrapolate"), "estimate"),
    **dict.fromkeys(("PALETTE", "page", "save", "style"), "figure"),
    **dict.fromkeys(("Claim", "agrees", "exceeds", "exponent_agrees", "lies_below", "limit_agrees"), "study.claim"),
    **dict.fromkeys(("scatter_agrees", "stays_below"), "study.claim"),
    **dict.fromkeys(("exponents", "mean_and_error", "mean_estimate", "mean_of_points"), "study.claim"),
    **dict.fromkeys(("Digits", "digits"), "study.dataset"),
    **dict.fromkeys(("Study", "StudyError"), "study.load"),
    **dict.fromkeys(("cover_points", "density_points", "line_and_points", "narrow_and_wide"), "study.panel"),
    **dict.fromkeys(("points", "rms_points"), "study.panel"),
    **dict.fromkeys(("drawn", "mean_and_band", "percentile_bar", "power_line"), "study.panel"),
    **dict.fromkeys(("plain_ticks", "width_axis"), "study.panel"),
    **dict.fromkeys(("Outcome", "run"), "study.pipeline"),
    "cite": "study.references",
    "set_up": "study.notebook",
    "stack": "study.merge",
    "tree": "study.merge",
}


def __getattr__(name: str) -> Any:
    if name in HOMES:
        return getattr(importlib.import_module(f"theorysim.{HOMES[name]}"), name)
    raise AttributeError(f"module 'theorysim.study' has no attribute {name!r}: it has {', '.join(__dir__())}")


def __dir__() -> list[str]:
    return sorted(HOMES)
