"""Losses of whole learning-rate schedules: two published laws, their fits, and the schedule that each likes best.

A schedule is an array of learning rates, one per update. Losses of one curve have errors in common: bootstrap them by
`groups=runs["curve"]`.
"""

from theorysim.scaling.schedule.fits import Fittable as Fittable
from theorysim.scaling.schedule.fits import annealing_law as annealing_law
from theorysim.scaling.schedule.fits import law_of as law_of
from theorysim.scaling.schedule.fits import multi_power_law as multi_power_law
from theorysim.scaling.schedule.laws import LAWS as LAWS
from theorysim.scaling.schedule.laws import ScheduleLaw as ScheduleLaw
from theorysim.scaling.schedule.laws import annealed_area as annealed_area
from theorysim.scaling.schedule.laws import annealing as annealing
from theorysim.scaling.schedule.laws import multi_power as multi_power
from theorysim.scaling.schedule.laws import steps_to_loss as steps_to_loss
from theorysim.scaling.schedule.memory import Curve as Curve
from theorysim.scaling.schedule.optimise import Optimised as Optimised
from theorysim.scaling.schedule.optimise import optimise as optimise
from theorysim.scaling.schedule.rates import constant as constant
from theorysim.scaling.schedule.rates import cosine as cosine
from theorysim.scaling.schedule.rates import drops as drops
from theorysim.scaling.schedule.rates import half_cosine as half_cosine
from theorysim.scaling.schedule.rates import linear as linear
from theorysim.scaling.schedule.rates import one_minus_sqrt as one_minus_sqrt
from theorysim.scaling.schedule.rates import stable_decay as stable_decay
from theorysim.scaling.schedule.rates import two_stage as two_stage
