"""Infinitely wide networks: Gaussian processes, tangent kernels, phases, training dynamics."""

from theorysim.infinite import abc as abc
from theorysim.infinite import dynamics as dynamics
from theorysim.infinite import mup as mup
from theorysim.infinite import phase as phase
from theorysim.infinite import posterior as posterior
from theorysim.infinite.activation import Activation as Activation
from theorysim.infinite.activation import cos as cos
from theorysim.infinite.activation import erf as erf
from theorysim.infinite.activation import exponential as exponential
from theorysim.infinite.activation import gelu as gelu
from theorysim.infinite.activation import hermite as hermite
from theorysim.infinite.activation import identity as identity
from theorysim.infinite.activation import leaky_relu as leaky_relu
from theorysim.infinite.activation import mish as mish
from theorysim.infinite.activation import piecewise_linear as piecewise_linear
from theorysim.infinite.activation import rbf as rbf
from theorysim.infinite.activation import relu as relu
from theorysim.infinite.activation import silu as silu
from theorysim.infinite.activation import sin as sin
from theorysim.infinite.activation import sinusoid as sinusoid
from theorysim.infinite.activation import softplus as softplus
from theorysim.infinite.activation import tanh as tanh
from theorysim.infinite.kernel import Kernels as Kernels
from theorysim.infinite.kernel import by_rows as by_rows
from theorysim.infinite.kernel import fully_connected as fully_connected
