"""A user's own data in, a report out: tables, fits with intervals, figures, files."""

from theorysim.report.curves import CurveReport as CurveReport
from theorysim.report.curves import are_curves as are_curves
from theorysim.report.curves import fit_curves as fit_curves
from theorysim.report.curves import read_curves as read_curves
from theorysim.report.curves import read_rates as read_rates
from theorysim.report.folder import names as names
from theorysim.report.folder import require_free as require_free
from theorysim.report.jobs import Job as Job
from theorysim.report.jobs import jobs as jobs
from theorysim.report.report import Prediction as Prediction
from theorysim.report.report import Report as Report
from theorysim.report.report import require_intervals as require_intervals
from theorysim.report.saved import load as load
from theorysim.report.scaling import RunReport as RunReport
from theorysim.report.scaling import fit as fit
from theorysim.report.scaling import fit_runs as fit_runs
from theorysim.report.table import concatenate as concatenate
from theorysim.report.table import find as find
from theorysim.report.table import read as read
