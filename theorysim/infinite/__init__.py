"""Infinitely wide networks: Gaussian processes, tangent kernels, phases, training dynamics."""

from theorysim.infinite import abc as abc
from theorysim.infinite import dynamics as dynamics
from theorysim.infinite import mup as mup
from theorysim.infinite import phase as phase
from theorysim.infinite.activation import Activation as Activation
from theorysim.infinite.activation import erf as erf
from theorysim.infinite.activation import tanh as tanh
from theorysim.infinite.kernel import Kernels as Kernels
from theorysim.infinite.kernel import fully_connected as fully_connected
