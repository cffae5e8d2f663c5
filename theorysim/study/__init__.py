"""Studies: load, run, verify and draw them; the page that shows them; the works they name."""

from theorysim.study.claim import Claim as Claim
from theorysim.study.claim import Estimate as Estimate
from theorysim.study.claim import exponent as exponent
from theorysim.study.claim import extrapolate as extrapolate
from theorysim.study.claim import mean_and_error as mean_and_error
from theorysim.study.load import Study as Study
from theorysim.study.load import StudyError as StudyError
from theorysim.study.pipeline import Outcome as Outcome
from theorysim.study.pipeline import run as run
from theorysim.study.references import cite as cite
from theorysim.study.style import PALETTE as PALETTE
from theorysim.study.style import page as page
from theorysim.study.style import save as save
from theorysim.study.style import style as style
