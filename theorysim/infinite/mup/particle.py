"""One hidden layer in the feature-learning limit: a system of particles, by deterministic quadrature.

A neuron has the preactivations h in R^P of the P inputs, and a readout weight z. Initially h ~ N(0, K) with
K = X X^T / D, and z ~ N(0, 1). With c = learning_rate gamma0 / P and Delta = y - f, one step of gradient descent is

    f = <z phi(h)> / gamma0,    h += c K (Delta phi'(h) z),    z += c phi(h) . Delta,

in which neurons meet in f only. (Bordelon & Pehlevan, arXiv:2205.09653, at one hidden layer and discrete time.)
"""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import ndtri
from scipy.stats import qmc

from theorysim.infinite.mup.trajectory import Trajectory, check, covariance_root
from theorysim.quadrature import derivative
from theorysim.typing import Scalar, ScalarLike, as_floats

NODES = {1: 161, 2: 91, 3: 45}  # along each direction of the initial law, by the rank of the inputs
REACH = 8.4  # exp(-REACH^2 / 2) = 5e-16
SOBOL_POINTS = 2**16
CHUNK = 2**13  # particles at once: their histories stay in the cache


class Particles(NamedTuple):
    """Neurons in chunks; h is over inputs."""

    h: Float[Array, "chunks inputs chunk"]
    z: Float[Array, "chunks chunk"]


def particles(
    activation: Callable[[Array], Array],
    inputs: Float[Array, "inputs dim"],
    targets: Float[Array, " inputs"],
    *,
    gamma0: ScalarLike,
    learning_rate: ScalarLike,
    steps: int,
    nodes: int | None = None,
) -> Trajectory:
    """Gradient descent on a network with one hidden layer of infinite width, exact at any learning rate.

    The initial law has min(inputs, dim) + 1 directions. Up to three and one they carry a tensor grid of the trapezoid
    rule, with `nodes` along each (by default 161, 91 and 45); beyond, Sobol's points mirrored in z (2^16, or `nodes`:
    a power of 2). For tanh, 16 steps at learning rate 0.3 and entries of X X^T / D up to 0.5, the loss of two inputs
    errs by 1e-13 up to gamma0 = 1 and by 1e-7 at 3; three directions err by 1e-7, Sobol's points by 1e-4 (all of the
    first loss). Larger inputs sharpen the integrand: with entries up to 3, three directions err by 1e-5.

    `activation` is elementwise and smooth; it is a static argument, so pass the same function to compile once.

    **Raises:** `ValueError` for shapes that do not match, `gamma0` or `learning_rate` <= 0, `steps` < 1.
    """
    inputs, targets, gamma0, learning_rate = as_floats(inputs, targets, gamma0, learning_rate)
    check(inputs, targets, gamma0, learning_rate, steps=steps)
    return _solve(activation, inputs, targets, gamma0, learning_rate, steps, nodes)


@partial(jax.jit, static_argnums=(0, 5, 6))
def _solve(
    activation: Callable[[Array], Array],
    inputs: Float[Array, "inputs dim"],
    targets: Float[Array, " inputs"],
    gamma0: Scalar,
    learning_rate: Scalar,
    steps: int,
    nodes: int | None,
) -> Trajectory:
    count, dim = inputs.shape
    rank = min(count, dim)
    gaussians, weights = (jnp.asarray(a, inputs.dtype) for a in initial_law(rank, nodes))
    root = covariance_root(inputs)
    start = Particles(jnp.einsum("ar,crn->can", root, gaussians[:, :rank]), gaussians[:, rank])
    kernel = root @ root.T
    rate = learning_rate * gamma0 / count
    slope = derivative(activation)

    def moved(state, error):
        h, z = state
        force = error[:, None] * slope(h) * z[None, :]
        return Particles(h + rate * kernel @ force, z + rate * error @ activation(h))

    def output(state, weights):
        return activation(state.h) @ (weights * state.z) / gamma0

    def total(fn, *chunks):
        """The sum of fn over chunks, and what else it returns, stacked."""
        shape = jax.eval_shape(fn, *jax.tree.map(lambda a: a[0], chunks))[0]
        zero = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shape)

        def add(partial_sum, chunk):
            term, rest = fn(*chunk)
            return jax.tree.map(jnp.add, partial_sum, term), rest

        return jax.lax.scan(add, zero, chunks)

    def step(carry, _):
        state, f = carry

        def move(state, weights):
            state = moved(state, targets - f)
            return output(state, weights), state

        after, state = total(move, state, weights)
        return (state, after), f

    initial, _ = total(lambda state, weights: (output(state, weights), None), start, weights)
    (_, last), early = jax.lax.scan(step, (start, initial), None, length=steps)
    outputs = jnp.concatenate([early, last[None]])

    # With the errors known, particles are independent: their kernels add up, chunk by chunk.
    def kernels(state, weights):
        def fields(state, error):
            return moved(state, error), (activation(state.h), slope(state.h) * state.z[None, :])

        _, histories = jax.lax.scan(fields, state, targets[None, :] - outputs)
        flat = [history.reshape(-1, weights.size) for history in histories]
        return [(a * weights[None, :]) @ a.T for a in flat], None

    times = steps + 1
    features, gradients = (k.reshape(1, times, count, times, count) for k in total(kernels, start, weights)[0])
    loss = jnp.square(targets[None, :] - outputs).mean(1) / 2
    return Trajectory(loss, outputs, features, gradients)


@cache
def initial_law(rank: int, nodes: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Points of the standard normal law in rank + 1 directions, and their weights, in chunks.

    Shapes (chunks, rank + 1, chunk) and (chunks, chunk); the last chunk is filled up with weights of 0.
    """
    if rank in NODES:
        line = np.linspace(-REACH, REACH, nodes or NODES[rank])
        points = np.stack(np.meshgrid(*[line] * (rank + 1), indexing="ij")).reshape(rank + 1, -1)
        points = points[:, (points**2).sum(0) <= REACH**2]
        weights = np.exp(-(points**2).sum(0) / 2)
    else:
        half = qmc.Sobol(rank + 1, rng=0).random(nodes or SOBOL_POINTS).T
        points = ndtri(np.concatenate([half, half], 1))
        points[-1, half.shape[1] :] *= -1
        weights = np.ones(points.shape[1])
    chunk = min(CHUNK, weights.size)
    missing = -weights.size % chunk
    points = np.pad(points, ((0, 0), (0, missing))).reshape(rank + 1, -1, chunk)
    return points.swapaxes(0, 1), np.pad(weights / weights.sum(), (0, missing)).reshape(-1, chunk)
