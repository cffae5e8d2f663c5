"""Finite networks and the training loop that studies compare with theory.

Loaded when first named, so that a study of one network does not depend on the code of the others.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from theorysim.networks import abc as abc
    from theorysim.networks import transfer as transfer
    from theorysim.networks.mlp import MLP as MLP
    from theorysim.networks.mlp import NTKDense as NTKDense
    from theorysim.networks.mlp import standard_normal_params as standard_normal_params
    from theorysim.networks.mup import train_mup as train_mup
    from theorysim.networks.posterior import PosteriorDraws as PosteriorDraws
    from theorysim.networks.posterior import sample_posterior as sample_posterior
    from theorysim.networks.propagation import Moments as Moments
    from theorysim.networks.propagation import propagate as propagate
    from theorysim.networks.tangent import empirical_ntk as empirical_ntk
    from theorysim.networks.tangent import empirical_ntk_blocks as empirical_ntk_blocks
    from theorysim.networks.tangent import empirical_ntk_product as empirical_ntk_product
    from theorysim.networks.teacher import PowerLawTeacher as PowerLawTeacher
    from theorysim.networks.teacher import power_law_teacher as power_law_teacher
    from theorysim.networks.training import schedule as schedule
    from theorysim.networks.training import train as train

MODULES = ("abc", "transfer")
HOMES = {
    "MLP": "mlp",
    "NTKDense": "mlp",
    "Moments": "propagation",
    "PosteriorDraws": "posterior",
    "PowerLawTeacher": "teacher",
    "empirical_ntk": "tangent",
    "empirical_ntk_blocks": "tangent",
    "empirical_ntk_product": "tangent",
    "power_law_teacher": "teacher",
    "propagate": "propagation",
    "sample_posterior": "posterior",
    "schedule": "training",
    "standard_normal_params": "mlp",
    "train": "training",
    "train_mup": "mup",
}


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return importlib.import_module(f"theorysim.networks.{name}")
    if name in HOMES:
        return getattr(importlib.import_module(f"theorysim.networks.{HOMES[name]}"), name)
    raise AttributeError(f"module 'theorysim.networks' has no attribute {name!r}: it has {', '.join(__dir__())}")


def __dir__() -> list[str]:
    return sorted([*MODULES, *HOMES])
