"""Kernels of fully connected networks of infinite width, in NTK parametrisation.

A layer is z = sqrt(weight_var / fan_in) W h + sqrt(bias_var) b with W, b ~ N(0, 1), and h = x or phi(z before).
"""

from typing import NamedTuple

from jaxtyping import Array, Float

from theorysim.infinite.activation import Activation
from theorysim.typing import ScalarLike


class Kernels(NamedTuple):
    """Covariances between two sets of inputs, shape (n1, n2).

    `nngp`: of the outputs at initialisation. `ntk`: of their gradients, sum over parameters.
    """

    nngp: Float[Array, "n1 n2"]
    ntk: Float[Array, "n1 n2"]


def fully_connected(
    activation: Activation,
    x1: Float[Array, "n1 d"],
    x2: Float[Array, "n2 d"],
    *,
    depth: int,
    weight_var: ScalarLike,
    bias_var: ScalarLike,
) -> Kernels:
    """Kernels of a network with `depth` hidden layers and one readout (Jacot et al., arXiv:1806.07572, theorem 1).

    With K_0 = weight_var x1 x2^T / d + bias_var and Theta_0 = K_0, each hidden layer maps

        K <- weight_var T(K) + bias_var,    Theta <- K + weight_var T'(K) * Theta.

    **Raises:** `ValueError` for inputs of unequal dimension, and for a negative depth.
    """
    if x1.shape[1] != x2.shape[1] or depth < 0:
        raise ValueError(f"inputs of shape {x1.shape} and {x2.shape}, depth={depth}: give one dimension, depth >= 0")

    def affine(covariance):
        return weight_var * covariance + bias_var

    variances = [affine((x**2).mean(1)) for x in (x1, x2)]
    nngp = ntk = affine(x1 @ x2.T / x1.shape[1])
    for _ in range(depth):
        q1, q2 = variances[0][:, None], variances[1][None, :]
        derivative = activation.dual_derivative(q1, q2, nngp)
        nngp = affine(activation.dual(q1, q2, nngp))
        ntk = nngp + weight_var * derivative * ntk
        variances = [affine(activation.dual(q, q, q)) for q in variances]
    return Kernels(nngp, ntk)
