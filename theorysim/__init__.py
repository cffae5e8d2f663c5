"""theorysim: what deep-learning theory predicts, what finite systems do, and how well they agree.

Everything loads when it is first named, so that importing the package costs nothing and one family's study does not
depend on another family's code.
"""

import importlib
from typing import TYPE_CHECKING, Any

from theorysim.doctor import warn_if_known_bad

if TYPE_CHECKING:
    from theorysim import infinite as infinite
    from theorysim import networks as networks
    from theorysim import report as report
    from theorysim import scaling as scaling
    from theorysim import study as study
    from theorysim.engine import Grid as Grid
    from theorysim.engine import labelled as labelled
    from theorysim.engine import nonfinite as nonfinite
    from theorysim.engine import static as static
    from theorysim.engine import sweep as sweep
    from theorysim.engine import zipped as zipped

FAMILIES = ("infinite", "networks", "report", "scaling", "study")
ENGINE = ("Grid", "labelled", "nonfinite", "static", "sweep", "zipped")

warn_if_known_bad()


def __getattr__(name: str) -> Any:
    if name in FAMILIES:
        return importlib.import_module(f"theorysim.{name}")
    if name in ENGINE:
        return getattr(importlib.import_module("theorysim.engine"), name)
    raise AttributeError(f"module 'theorysim' has no attribute {name!r}: it has {', '.join(ENGINE + FAMILIES)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *ENGINE, *FAMILIES])
