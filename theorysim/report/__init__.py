"""A user's own data in, a report out: tables, fits with intervals, figures, files."""

from theorysim.report.scaling import Prediction as Prediction
from theorysim.report.scaling import Report as Report
from theorysim.report.scaling import fit as fit
from theorysim.report.scaling import load as load
from theorysim.report.scaling import sentences as sentences
from theorysim.report.table import read as read
