"""A user's own data in, a report out: tables, fits with intervals, figures, files."""

from theorysim.report.curves import CurveReport as CurveReport
from theorysim.report.curves import are_curves as are_curves
from theorysim.report.curves import fit_curves as fit_curves
from theorysim.report.curves import read_rates as read_rates
from theorysim.report.saved import load as load
from theorysim.report.scaling import Prediction as Prediction
from theorysim.report.scaling import Report as Report
from theorysim.report.scaling import fit as fit
from theorysim.report.table import concatenate as concatenate
from theorysim.report.table import read as read
