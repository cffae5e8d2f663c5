"""The sweep: pure functions over hyperparameter grids, on any devices, into labelled results."""

from theorysim.engine.finite import nonfinite as nonfinite
from theorysim.engine.grid import Grid as Grid
from theorysim.engine.grid import labelled as labelled
from theorysim.engine.grid import static as static
from theorysim.engine.grid import zipped as zipped
from theorysim.engine.sweep import Plan as Plan
from theorysim.engine.sweep import sweep as sweep
