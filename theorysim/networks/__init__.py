"""Finite networks and the small training loops that studies compare with theory."""

from theorysim.networks import abc as abc
from theorysim.networks.curve import PowerLawTeacher as PowerLawTeacher
from theorysim.networks.curve import learning_curve as learning_curve
from theorysim.networks.curve import power_law_teacher as power_law_teacher
from theorysim.networks.mlp import MLP as MLP
from theorysim.networks.mlp import NTKDense as NTKDense
from theorysim.networks.mlp import standard_normal_params as standard_normal_params
from theorysim.networks.mup import train_mup as train_mup
from theorysim.networks.posterior import PosteriorDraws as PosteriorDraws
from theorysim.networks.posterior import sample_posterior as sample_posterior
from theorysim.networks.propagate import Moments as Moments
from theorysim.networks.propagate import propagate as propagate
from theorysim.networks.tangent import empirical_ntk as empirical_ntk
from theorysim.networks.tangent import empirical_ntk_blocks as empirical_ntk_blocks
from theorysim.networks.tangent import empirical_ntk_product as empirical_ntk_product
from theorysim.networks.train import train as train
