"""muTransfer: how hyperparameters found at one width move to another (Yang et al., arXiv:2203.03466)."""

from typing import NamedTuple

from theorysim.checks import require_one_of
from theorysim.typing import Scalar, ScalarLike, as_floats

ROLES = ("input", "hidden", "readout", "bias", "fixed")
"""What a parameter's dimensions do as the width grows; see [`transfer`]."""


class Scaling(NamedTuple):
    """Factors on the hyperparameters of a parameter, as the width grows to `ratio` times the base width.

    `learning_rate`; `initial_std`; `multiplier` in front of the weights. `weight_decay` is the factor where the decay
    of a step is learning_rate * weight_decay, as in `optax.adamw`; a decay that is its own rate needs none.
    """

    learning_rate: Scalar
    initial_std: Scalar
    multiplier: Scalar
    weight_decay: Scalar


def transfer(role: str, ratio: ScalarLike, *, optimizer: str) -> Scaling:
    """How to scale hyperparameters found at a base width: at every width the best ones are then the same.

    Powers of `ratio` = width / base width, as in version 1.0 of Microsoft's `mup` (Yang et al., arXiv:2203.03466):

    | role      | learning rate (SGD) | (Adam) | initial std | multiplier | what                                    |
    |-----------|---------------------|--------|-------------|------------|-----------------------------------------|
    | `input`   | 1                   | 0      | 0           | 0          | weights from a fixed dimension to width |
    | `hidden`  | 0                   | -1     | -1/2        | 0          | from width to width                     |
    | `readout` | 1                   | 0      | 0           | -1         | from width to a fixed dimension         |
    | `bias`    | 1                   | 0      | 0           | 0          | vectors of length width                 |
    | `fixed`   | 0                   | 0      | 0           | 0          | no dimension grows: the readout's bias  |

    The usual scaling, an initial std of 1 / sqrt(fan_in) and nothing else, is each width as its own base: `ratio` = 1.
    Attention logits also need 1 / head dimension in place of its root.

    **Raises:** `ValueError` for an unknown `role`, and for an `optimizer` other than "sgd" and "adam".
    """
    require_one_of(ROLES, role=role)
    require_one_of(("sgd", "adam"), optimizer=optimizer)
    vector_like = role in ("input", "readout", "bias")
    rate = {"sgd": 1.0 if vector_like else 0.0, "adam": -1.0 if role == "hidden" else 0.0}[optimizer]
    std, multiplier = -0.5 if role == "hidden" else 0.0, -1.0 if role == "readout" else 0.0
    (ratio,) = as_floats(ratio)
    return Scaling(*(ratio**power for power in (rate, std, multiplier, -rate)))
