"""One hidden layer in the feature-learning limit: a system of particles, by deterministic quadrature.

A neuron has the preactivations h in R^P of the P inputs, and a readout weight z. Initially h ~ N(0, K) with
K = X X^T / D, and z ~ N(0, 1). With c = learning_rate gamma0 / P and Delta = y - f, one step of gradient descent is

    f = <z phi(h)> / gamma0,    h += c K (Delta phi'(h) z),    z += c phi(h) . Delta,

in which neurons meet in f only. (Bordelon & Pehlevan, arXiv:2205.09653, at one hidden layer and discrete time.)

The initial law is integrated on a lattice, weighted by the Gaussian: the trapezoid rule, if the lattice is cubic. What
it errs by is the integrand's Fourier transform at the points of the dual lattice. Along few axes at once that reaches
far (tanh has poles), along many it does not: a good lattice is one whose dual avoids a cross-polytope, as for
trigonometric polynomials of a high degree (Cools & Lyness 2001). Those here are of rank one, {j (1, a, a^2, ...) / N},
with axes along the inputs and spacings that follow the eigenvalues of K; N and a are from a search. In seven
dimensions a cubic grid takes some hundred times the points.
"""

import math
from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import ndtri
from scipy.stats import qmc

from theorysim.checks import is_traced
from theorysim.infinite.activation import Activation, as_activation
from theorysim.infinite.mup import cone
from theorysim.infinite.mup.solution import Solution, check, covariance_root, solution_of, total
from theorysim.quadrature import derivative
from theorysim.trajectory import Trajectory
from theorysim.typing import Scalar, ScalarLike, as_floats


class Lattice(NamedTuple):
    """The lattice {j (1, a, a^2, ...) / N}; how many of its points are taken, and how far from 0."""

    N: int
    a: int
    points: int
    reach: float


LATTICES = {  # by the rank of the inputs
    1: Lattice(34, 13, 2**15, 8.4),
    2: Lattice(2, 1, 2**18, 8.4),
    3: Lattice(226, 69, 2**19, 7.0),
    4: Lattice(124, 27, 2**21, 6.5),
    5: Lattice(936, 29, 2**21, 6.5),
    6: Lattice(1055, 364, 2**22, 6.5),
}
SHARPNESS = 4.0  # a function of sqrt(eigenvalue) u wants points closer by 1 / sqrt(1 + SHARPNESS eigenvalue)
SOBOL_POINTS = 2**17
CHUNK = 2**13  # particles at once: their histories stay in the cache


class Particles(NamedTuple):
    """Neurons in chunks; h is over inputs."""

    h: Float[Array, "chunks inputs chunk"]
    z: Float[Array, "chunks chunk"]


class Law(NamedTuple):
    """The standard normal law in rank + 1 directions, z the last: points, in chunks, and their weights.

    The weights are of all points, and of every second. What fills up the last chunk weighs 0.
    """

    points: Float[Array, "chunks directions chunk"]
    weights: Float[Array, "chunks 2 chunk"]


Host = tuple[Float[np.ndarray, "chunks directions chunk"], Float[np.ndarray, "chunks 2 chunk"]]  # a law, not traced


def particles(
    activation: Activation | Callable[[Array], Array],
    x: Float[Array, "inputs dim"],
    targets: Float[Array, " inputs"],
    *,
    gamma0: ScalarLike,
    learning_rate: ScalarLike,
    steps: int,
    points: int | None = None,
) -> Solution:
    """Gradient descent on a network with one hidden layer of infinite width, exact at any learning rate.

    The initial law has min(inputs, dim) directions, and that of z. Up to six and one a lattice carries it; for tanh,
    inputs with x . x / D = 1, gamma0 = 1 and 12 steps at the learning rate 0.15 inputs, the errors were

    | rank | points | loss, of the first one | outputs | gradients' kernel | two busy cores |
    |---|---|---|---|---|---|
    | 1, 2 | 2^15, 2^18 | 1e-14 | 1e-13 | 1e-11 | 0.3 s |
    | 3 | 2^19 | 1e-11 to 1e-7 | 1e-11 to 2e-7 | 1e-6 | 1 s |
    | 4 | 2^21 | 1e-7 to 7e-7 | 1e-6 to 8e-6 | 1e-5 | 4 s |
    | 5 | 2^21 | 3e-7 to 1e-5 | 2e-6 to 9e-5 | 5e-5 | 4 s |
    | 6 | 2^22 | 2e-6 to 4e-5 | 2e-5 to 2e-4 | 4e-4 | 8 s |

    They are the larger, the larger an eigenvalue of X X^T / D (here up to 4), targets, and gamma0: at gamma0 = 3,
    entries of X X^T / D up to 0.5, 1e-10 of the loss at rank 2 and 5e-6 at 3. Four times the points take off a factor
    of 40 at rank 4, of 3 to 9 at 5 and 6. Out of reach are more directions, and kinks: with Sobol's points, mirrored in
    z, 1e-4 each.

    But an activation that is linear on both sides of 0, as relu, is integrated along half circles
    ([`theorysim.infinite.mup.cone`]), exactly; for relu, gamma0 = 1 and 8 or 12 steps, the errors were

    | rank | half circles | loss | outputs | gradients' kernel | two busy cores |
    |---|---|---|---|---|---|
    | 1 | 2 | 1e-13 | 1e-13 | 1e-12 | 0.01 s |
    | 2 | 2^11 | 1e-8 | 1e-7 | 1e-6 | 0.4 s |
    | 3 | 2^14 | 2e-7 | 1e-6 | 3e-5 | 5 s |
    | 4 | 2^13 | 4e-7 to 2e-5 | 3e-6 to 1e-4 | 1e-4 to 4e-3 | 10 s |

    and fall like 1 / points^2 at rank 2, 1 / points at 3, not steadily at 4 (the larger errors there are for inputs in
    general position, the smaller ones for inputs in a plane). At rank 1 `error` is 0: nothing is left but rounding.

    `error` compares all points with every second one, for outputs and loss. It was mostly above the true error, and at
    least a thirtieth of it.

    A half circle holds at most 32 arcs per step and input; under a trace (`jit`, or `vmap` over gamma0), where the
    number cannot grow, 8. Up to some 25 steps, no run needed more than 8. Where more are needed `error` is infinite and
    `converged` false: call outside of the trace, or take fewer steps.

    **Arguments:**

    - `activation`: smooth, or linear on both sides of 0 where its `slopes` say so ([`piecewise_linear`]); a static
      argument, so pass the same function to compile once.
    - `points`: of the initial law, about, or half circles; by default as above.

    ```python
    from theorysim.infinite import mup, relu

    problem = {"gamma0": 1.0, "learning_rate": 0.3, "steps": 4}
    exact = mup.particles(relu, jnp.array([[1.0]]), jnp.array([1.0]), **problem)
    assert exact.converged and exact.error.loss.max() == 0
    ```

    **Raises:** `ValueError` for shapes that do not match, `gamma0` or `learning_rate` <= 0, `steps` < 1.
    """
    activation = as_activation(activation)
    x, targets, gamma0, learning_rate = as_floats(x, targets, gamma0, learning_rate)
    check(x, targets, gamma0, learning_rate, steps=steps)
    rank = min(x.shape)
    if activation.slopes is not None and rank in cone.HALF_CIRCLES:
        return cone.solve(activation.slopes, x, targets, gamma0, learning_rate, steps, points)
    law = lattice(rank, points, x, odd=_is_odd(activation)) if rank in LATTICES else sobol(rank, points)
    law = Law(*[jnp.asarray(a, x.dtype) for a in law])
    return _solve(activation, x, targets, gamma0, learning_rate, law, steps)


@partial(jax.jit, static_argnums=(0, 6))
def _solve(
    activation: Callable[[Array], Array],
    x: Float[Array, "inputs dim"],
    targets: Float[Array, " inputs"],
    gamma0: Scalar,
    learning_rate: Scalar,
    law: Law,
    steps: int,
) -> Solution:
    count = len(x)
    root = covariance_root(x)
    start = Particles(jnp.einsum("ar,crn->can", root, law.points[:, :-1]), law.points[:, -1])
    kernel = root @ root.T
    rate = learning_rate * gamma0 / count
    slope = derivative(activation)

    def moved(state, error):
        h, z = state
        force = error[:, None] * slope(h) * z[None, :]
        return Particles(h + rate * kernel @ force, z + rate * error @ activation(h))

    def output(state, weights):
        return (weights * state.z[None, :]) @ activation(state.h).T / gamma0

    def step(carry, _):
        state, f = carry

        def move(state, weights):
            state = moved(state, targets - f[0])
            return output(state, weights), state

        after, state = total(move, state, law.weights)
        return (state, after), f

    initial, _ = total(lambda state, weights: (output(state, weights), None), start, law.weights)
    (_, last), early = jax.lax.scan(step, (start, initial), None, length=steps)
    outputs, of_half = jnp.concatenate([early, last[None]]).swapaxes(0, 1)

    # With the errors known, particles are independent: their kernels add up, chunk by chunk.
    def kernels(state, weights):
        def fields(state, error):
            return moved(state, error), (activation(state.h), slope(state.h) * state.z[None, :])

        _, histories = jax.lax.scan(fields, state, targets[None, :] - outputs)
        flat = [history.reshape(-1, weights.shape[1]) for history in histories]
        return [(a * weights[:1]) @ a.T for a in flat], None

    times = steps + 1
    features, gradients = (k.reshape(1, times, count, times, count) for k in total(kernels, start, law.weights)[0])
    loss = jnp.square(targets[None, :] - outputs).mean(1) / 2
    return solution_of(Trajectory(loss, outputs, features, gradients), of_half, targets)


def lattice(rank: int, points: int | None, x: Float[Array, "inputs dim"], *, odd: bool) -> Host:
    """A lattice in a ball, weighted by the Gaussian. `odd`: (h, z) and (-h, -z) do the same, so half a ball is enough.

    Its axes and spacings follow the inputs, unless those are traced.
    """
    axes = np.eye(rank + 1)
    if not is_traced(x):
        turn, scales, _ = np.linalg.svd(np.asarray(x, float), full_matrices=False)
        eigenvalues = scales**2 / x.shape[1]
        spacings = 1 / np.sqrt(1 + SHARPNESS * np.r_[eigenvalues, eigenvalues.mean()])
        if len(turn) == rank:
            axes[:rank, :rank] = turn.T
        axes *= spacings[:, None]
    return _lattice(LATTICES[rank], points or LATTICES[rank].points, odd, tuple(map(tuple, axes.tolist())))


@lru_cache(maxsize=1)
def _lattice(rule: Lattice, points: int, odd: bool, axes: tuple[tuple[float, ...], ...]) -> Host:
    """All y of the lattice with |basis y| <= reach, found from their last coordinate to the first."""
    size = len(axes)
    ball = np.pi ** (size / 2) / math.gamma(size / 2 + 1) * rule.reach**size
    volume = rule.N * ball / (points * (1 + odd))  # of a cubic cell, which holds N points
    basis = np.array(axes) * (volume / abs(np.linalg.det(np.array(axes)))) ** (1 / size)
    triangle = np.linalg.cholesky(basis.T @ basis).T  # |triangle y| = |basis y|; its rows need later coordinates only
    number = np.arange(rule.N)
    y, square = np.zeros((size, rule.N)), np.zeros(rule.N)
    for i in reversed(range(size)):
        fraction = number * pow(rule.a, i, rule.N) % rule.N / rule.N
        center = -(triangle[i, i + 1 :] @ y[i + 1 :]) / triangle[i, i]
        radius = np.sqrt(rule.reach**2 - square) / triangle[i, i]
        lowest, highest = np.ceil(center - radius - fraction), np.floor(center + radius - fraction)
        if odd and i == size - 1:
            lowest = np.maximum(lowest, 0)
        counts = np.maximum(highest - lowest + 1, 0).astype(int)
        whole = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts - lowest, counts)
        number, y, square, center = (np.repeat(a, counts, -1) for a in (number, y, square, center))
        y[i] = whole + np.repeat(fraction, counts)
        square = np.minimum(square + (triangle[i, i] * (y[i] - center)) ** 2, rule.reach**2)
    weights = np.exp(-square / 2) * np.where(odd & (y[-1] > 0), 2, 1)
    return _in_chunks(basis @ y, np.stack([weights, weights * (np.rint(rule.N * y[0]) % 2 == 0)]))


@cache
def sobol(rank: int, points: int | None) -> Host:
    """Sobol's points, mirrored in z."""
    half = qmc.Sobol(rank + 1, rng=0).random((points or SOBOL_POINTS) // 2).T
    normal = ndtri(np.concatenate([half, half], 1))
    normal[-1, half.shape[1] :] *= -1
    number = np.arange(normal.shape[1]) % half.shape[1]
    return _in_chunks(normal, np.stack([np.ones(len(number)), number < half.shape[1] // 2]))


def _in_chunks(points: Float[np.ndarray, "directions n"], weights: Float[np.ndarray, "2 n"]) -> Host:
    """As few as hold all; their number is the same for lattices of about the same size, which compile once."""
    weights = weights / weights.sum(1, keepdims=True)
    chunk = min(CHUNK, points.shape[1])
    chunks = -(-points.shape[1] // chunk)

    def padded(a):
        return np.pad(a, ((0, 0), (0, chunks * chunk - a.shape[1]))).reshape(len(a), chunks, chunk).swapaxes(0, 1)

    return padded(points), padded(weights)


def _is_odd(activation: Callable[[Array], Array]) -> bool:
    with jax.ensure_compile_time_eval():
        z = jnp.linspace(0.0, 20.0, 401)
        values, mirrored = activation(z), activation(-z)
        odd = (jnp.abs(values + mirrored) <= 4 * jnp.finfo(z.dtype).eps * jnp.abs(values)).all()
    return not is_traced(odd) and bool(odd)
