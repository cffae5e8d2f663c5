"""Studies: load, run, verify and draw them; the page that shows them; the works they name."""

from theorysim.estimate import Estimate as Estimate
from theorysim.estimate import exponent as exponent
from theorysim.estimate import extrapolate as extrapolate
from theorysim.figure import PALETTE as PALETTE
from theorysim.figure import page as page
from theorysim.figure import save as save
from theorysim.figure import style as style
from theorysim.study.claim import Claim as Claim
from theorysim.study.claim import agrees as agrees
from theorysim.study.claim import exponent_agrees as exponent_agrees
from theorysim.study.claim import limit_agrees as limit_agrees
from theorysim.study.claim import mean_and_error as mean_and_error
from theorysim.study.claim import mean_estimate as mean_estimate
from theorysim.study.digits import Digits as Digits
from theorysim.study.digits import digits as digits
from theorysim.study.load import Study as Study
from theorysim.study.load import StudyError as StudyError
from theorysim.study.panel import plain_ticks as plain_ticks
from theorysim.study.panel import points as points
from theorysim.study.panel import width_axis as width_axis
from theorysim.study.pipeline import Outcome as Outcome
from theorysim.study.pipeline import run as run
from theorysim.study.references import cite as cite
