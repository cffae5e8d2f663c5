"""theorysim: what deep-learning theory predicts, what finite systems do, and how well they agree.

The families of theory load when they are first named, so that importing the package stays cheap.
"""

import importlib
from typing import TYPE_CHECKING, Any

from theorysim.doctor import warn_if_known_bad
from theorysim.engine import Grid as Grid
from theorysim.engine import nonfinite as nonfinite
from theorysim.engine import static as static
from theorysim.engine import sweep as sweep
from theorysim.engine import zipped as zipped

if TYPE_CHECKING:
    from theorysim import infinite as infinite
    from theorysim import networks as networks
    from theorysim import study as study

_LAZY = ("infinite", "networks", "study")

warn_if_known_bad()


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"theorysim.{name}")
    raise AttributeError(f"module 'theorysim' has no attribute {name!r}; its families are {', '.join(_LAZY)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
