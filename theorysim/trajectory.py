"""Training by gradient descent as studies of feature learning see it: outputs, loss, kernels of every layer."""

from typing import NamedTuple

from jaxtyping import Array, Float


class Trajectory(NamedTuple):
    """Training at times 0, ..., `steps`: outputs f, loss mean (y - f)^2 / 2, and the kernels of each hidden layer.

    `features` is Phi^l(t, a; s, b) = <phi(h^l_a(t)) phi(h^l_b(s))>, and `gradients` G^l the same of
    g^l = gamma0 N df/dh^l: averages over the neurons of layer l, for inputs a, b and times t, s.
    """

    loss: Float[Array, " times"]
    outputs: Float[Array, "times inputs"]
    features: Float[Array, "depth times inputs times inputs"]
    gradients: Float[Array, "depth times inputs times inputs"]
