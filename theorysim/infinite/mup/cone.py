"""One hidden layer with a positively homogeneous activation: exact along half circles.

Where phi(s h) = s phi(h) for s >= 0, as of relu, a neuron at any time is positively homogeneous in its initial values:
linear on cones, between which some h has changed its sign. Means over neurons (of z phi(h), say) are of degree two, so
that those of the Gaussian are, but for a factor, those of the sphere. And the sphere is swept by half circles

    cos(theta) axis + sin(theta) direction,    0 <= theta <= pi, with the measure sin(theta)^(rank - 1),

which meet cones in arcs. There h and z are waves a cos(theta) + b sin(theta), and means have closed forms. What is left
is the mean over directions, of a function that is continuous, with kinks where a half circle meets two borders at once.
With one direction of inputs there are two half circles, and everything is exact.

A step moves the waves on every arc, and cuts it where an h then vanishes. The axis has z = 0, so that the law's
symmetry in z is the directions', and lies far from where an h vanishes initially.
"""

import math
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from theorysim.checks import is_traced
from theorysim.infinite.mup.solution import Solution, covariance_root, solution_of, total
from theorysim.trajectory import Trajectory
from theorysim.typing import Scalar

HALF_CIRCLES = {1: 2, 2: 2**11, 3: 2**14, 4: 2**13}  # by the rank of the inputs
POOL = 2**12  # arcs at once, of some half circles
RATIOS = (2, 4, 8, 16, 32)  # of the arcs on a half circle to pairs of a time and an input: the first that does
AMPLE = 8  # where it cannot be known what does
AXES, GENERATORS = 512, 128  # to choose from

Wave = Float[Array, "2 *fields arcs"]


class Arcs(NamedTuple):
    """Arcs of some half circles, in order: their ends (cos, sin), and the waves on them. Empty ones fill the space."""

    circle: Int[Array, " arcs"]
    left: Float[Array, "2 arcs"]
    right: Float[Array, "2 arcs"]
    h: Float[Array, "2 inputs arcs"]
    z: Float[Array, "2 arcs"]


class Directions(NamedTuple):
    """Points of a sphere, in chunks, z the last coordinate; their weights, of all and of every second one.

    What fills up the last chunk weighs 0.
    """

    points: Float[Array, "chunks directions chunk"]
    weights: Float[Array, "chunks 2 chunk"]


def solve(
    slopes: tuple[float, float],
    x: Float[Array, "inputs dim"],
    targets: Float[Array, " inputs"],
    gamma0: Scalar,
    learning_rate: Scalar,
    steps: int,
    points: int | None,
) -> Solution:
    """The limit with the activation of `slopes` (left, right).

    Where a half circle needs more arcs than it holds, all are solved again with more; under a trace that is not known,
    and the error is infinite.
    """
    problem = jnp.asarray(slopes, x.dtype), x, targets, gamma0, learning_rate

    def run(ratio):
        space = ratio * (steps + 1) * len(x)
        law = _in_chunks(*_directions(min(x.shape), points), max(1, POOL // space))
        return _solve(*problem, Directions(*[jnp.asarray(a, x.dtype) for a in law]), steps, space)

    first, *larger = (AMPLE,) if any(map(is_traced, problem)) else RATIOS
    solution = run(first)
    for ratio in larger:
        if not solution.converged:
            solution = run(ratio)
    return solution


@partial(jax.jit, static_argnums=(6, 7))
def _solve(
    slopes: Float[Array, "2"],
    x: Float[Array, "inputs dim"],
    targets: Float[Array, " inputs"],
    gamma0: Scalar,
    learning_rate: Scalar,
    directions: Directions,
    steps: int,
    space: int,
) -> Solution:
    rank, count = min(x.shape), len(x)
    root = covariance_root(x)
    kernel, turned = root @ root.T, root @ _axes(root)
    rate = learning_rate * gamma0 / count

    def fields(arcs):
        slope = jnp.where(_at((arcs.left + arcs.right)[:, None], arcs.h) > 0, slopes[1], slopes[0])
        return slope[None] * arcs.h, slope[None] * arcs.z[:, None]

    def moved(arcs, error):
        phi, g = fields(arcs)
        h = arcs.h + rate * (kernel[None, :, :, None] * (error[None, :, None] * g)[:, None]).sum(2)
        return arcs._replace(h=h, z=arcs.z + rate * (error[None, :, None] * phi).sum(1))

    def output(arcs, weights):
        phi, _ = fields(arcs)
        means = (_moments(arcs, rank)[:, :, None] * arcs.z[:, None, None] * phi[None]).sum((0, 1))
        return weights[:, arcs.circle] @ means.T / gamma0

    def first(points, weights):
        arcs, new = _cut(_quarters(turned, points, space))
        return output(arcs, weights), (arcs, 2 * points.shape[1] + new)

    def step(carry, _):
        state, f = carry

        def move(state, weights):
            arcs, new = _cut(moved(state[0], targets - f[0]))
            return output(arcs, weights), (arcs, state[1] + new)

        after, state = total(move, state, directions.weights)
        return (state, after), f

    start, state = total(first, *directions)
    (state, last), early = jax.lax.scan(step, (state, start), None, length=steps)
    arcs, used = state
    outputs, of_half = jnp.concatenate([early, last[None]]).swapaxes(0, 1)

    # With the errors known, once more from the start, on arcs that the borders of no time cut.
    def kernels(points, weights, arcs):
        def histories(arcs, error):
            return moved(arcs, error), fields(arcs)

        h, z = _initial(turned, points, arcs.circle)
        _, waves = jax.lax.scan(histories, arcs._replace(h=h, z=z), targets[None, :] - outputs)
        moments = weights[0, arcs.circle][None, None] * _moments(arcs, rank)
        return [_products(wave, moments) for wave in waves], None

    features, gradients = (k[None] for k in total(kernels, *directions, arcs)[0])
    loss = jnp.square(targets[None, :] - outputs).mean(1) / 2
    # More arcs than there is space for: nothing is known.
    of_half = jnp.where((used > arcs.circle.shape[1]).any(), jnp.inf, of_half)
    return solution_of(Trajectory(loss, outputs, features, gradients), of_half, targets)


def _initial(turned: Float[Array, "inputs rank"], points: Array, circle: Int[Array, " arcs"]) -> tuple[Array, Array]:
    """The waves of h and z on each arc's half circle: h along the axis and the direction, z along the direction."""
    direction = points[:, circle]
    along_axis = jnp.broadcast_to(turned[:, :1], (len(turned), len(circle)))
    z = direction[-1]
    return jnp.stack([along_axis, turned[:, 1:] @ direction[:-1]]), jnp.stack([jnp.zeros_like(z), z])


def _quarters(turned: Float[Array, "inputs rank"], points: Array, space: int) -> Arcs:
    """Each half circle as two arcs: an arc shorter than pi has at most one zero of each h."""
    number = jnp.arange(points.shape[1] * space)
    ends = jnp.array([[1, 0, -1, -1], [0, 1, 0, 0]], turned.dtype)
    left = jnp.where(number < 2 * points.shape[1], number % 2, 2)
    circle = jnp.minimum(number // 2, points.shape[1] - 1)
    return Arcs(circle, ends[:, left], ends[:, left + 1], *_initial(turned, points, circle))


def _at(points: Float[Array, "2 *ones arcs"], wave: Wave) -> Float[Array, "*fields arcs"]:
    return points[0] * wave[0] + points[1] * wave[1]


def _cut(arcs: Arcs) -> tuple[Arcs, Int[Array, ""]]:
    """Arcs on which no h changes its sign, and how many more they are."""
    circle, left, right, h, z = arcs
    at_left, at_right = _at(left[:, None], h), _at(right[:, None], h)
    differ = (at_left > 0) != (at_right > 0)
    share = at_left / jnp.where(differ, at_left - at_right, 1.0)  # of the chord, up to the zero
    width = left[0] * right[1] - left[1] * right[0]
    # A border that is known already comes back within rounding.
    differ &= jnp.minimum(share, 1 - share) * width[None] > 64 * jnp.finfo(left.dtype).eps
    share = jnp.where(differ, share, 2.0)
    earlier = jnp.tri(len(share), k=-1, dtype=bool)[:, :, None]  # of two equal ones
    place = 1 + ((share[None] < share[:, None]) | (share[None] == share[:, None]) & earlier).sum(1)
    pieces = 1 + differ.sum(0)
    number = jnp.arange(len(circle))
    parent = jnp.repeat(number, pieces, total_repeat_length=len(number))
    piece = number - (jnp.cumsum(pieces) - pieces)[parent]
    own = place[:, parent] == piece[None]
    share = jnp.where(own, share[:, parent], 0.0).sum(0, keepdims=True)
    left = (1 - share) * left[:, parent] + share * right[:, parent]
    left = left / jnp.linalg.norm(left, axis=0, keepdims=True)
    right = jnp.where((piece + 1 < pieces[parent])[None], jnp.roll(left, -1, axis=1), right[:, parent])
    return Arcs(circle[parent], left, right, h[:, :, parent], z[:, parent]), differ.sum()


def _moments(arcs: Arcs, rank: int) -> Float[Array, "2 2 arcs"]:
    """Second moments of (cos, sin) on each arc. On a half circle those of cos^2 add up to 1, as in the Gaussian."""
    (cos0, sin0), (cos1, sin1) = arcs.left, arcs.right
    powers = [jnp.arctan2(cos0 * sin1 - sin0 * cos1, cos0 * cos1 + sin0 * sin1), cos0 - cos1]  # integrals of sin^n
    for n in range(2, rank + 2):
        powers.append(((n - 1) * powers[n - 2] + sin0 ** (n - 1) * cos0 - sin1 ** (n - 1) * cos1) / n)
    mixed = (sin1 ** (rank + 1) - sin0 ** (rank + 1)) / (rank + 1)
    integrals = jnp.stack([powers[rank - 1] - powers[rank + 1], mixed, mixed, powers[rank + 1]])
    half_circle = math.sqrt(math.pi) / 2 * math.gamma(rank / 2) / math.gamma(rank / 2 + 1.5)
    return integrals.reshape(2, 2, -1) / half_circle


def _products(
    wave: Float[Array, "times 2 inputs arcs"], moments: Float[Array, "2 2 arcs"]
) -> Float[Array, "times inputs times inputs"]:
    times, _, count, _ = wave.shape
    weighted = jnp.einsum("ijn,tian->tajn", moments, wave)
    flat = [a.reshape(times * count, -1) for a in (weighted, wave.swapaxes(1, 2))]
    return (flat[0] @ flat[1].T).reshape(times, count, times, count)


def _axes(root: Float[Array, "inputs rank"]) -> Float[Array, "rank rank"]:
    """An orthogonal matrix: a reflection that makes the first axis one of those far from all h = 0."""
    rank = root.shape[1]
    trial = np.random.default_rng(0).standard_normal((AXES, rank))
    trial = jnp.asarray(trial / np.linalg.norm(trial, axis=1, keepdims=True), root.dtype)
    norm = jnp.linalg.norm(root, axis=1, keepdims=True)
    cosines = jnp.where(norm > 0, jnp.abs(root @ trial.T) / jnp.where(norm > 0, norm, 1.0), 1.0)
    axis = jax.lax.stop_gradient(trial[cosines.min(0).argmax()])
    mirror = axis.at[0].add(jnp.where(axis[0] > 0, 1.0, -1.0))
    return jnp.eye(rank, dtype=root.dtype) - 2 * jnp.outer(mirror, mirror) / (mirror @ mirror)


@cache
def _directions(rank: int, points: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Points on the sphere, symmetric in z, and their weights, of all and of every second."""
    count = points or HALF_CIRCLES[rank]
    if rank == 1:
        return np.array([[1.0, -1.0]]), np.ones((2, 2))
    count = -(-count // 8) * 8
    number = np.arange(count)
    every_second = number % 2 == 0
    if rank == 2:
        # Two points of Gauss on each panel: the kinks known beforehand, at z = 0 and along z, are between panels.
        angle = 2 * np.pi / count * (number // 2 * 2 + 1 - np.where(every_second, 1, -1) / math.sqrt(3))
        return np.stack([np.cos(angle), np.sin(angle)]), np.stack([np.ones(count), every_second])
    # A lattice of polar angles, on each of two halves: sparse near its ends, the equator with the first kinks is one.
    y = np.tile(_lattice(count // 2, rank - 1), 2)
    smooth, weights = y - np.sin(2 * np.pi * y) / (2 * np.pi), np.ones(count)
    radius, coordinates = np.ones(count), []
    for i in range(rank - 2):
        angle = smooth[i] * (np.pi if i else np.pi / 2)
        weights = weights * (1 - np.cos(2 * np.pi * y[i])) * np.sin(angle) ** (rank - 2 - i)
        coordinates.append(radius * np.cos(angle))
        radius = radius * np.sin(angle)
    z = coordinates[0] * np.where(number < count // 2, 1, -1)
    circle = [radius * np.cos(2 * np.pi * y[-1]), radius * np.sin(2 * np.pi * y[-1])]
    return np.stack([*coordinates[1:], *circle, z]), np.stack([weights, weights * every_second])


def _lattice(count: int, axes: int) -> Float[np.ndarray, "axes count"]:
    """{j (1, a, a^2, ...) / count}, the a the best of some for smooth functions, in the middle of its cells."""

    def lattice(a):
        return np.stack([np.arange(count) * pow(a, i, count) % count / count for i in range(axes)])

    def square_error(a):
        point = lattice(a)
        return np.prod(1 + 2 * np.pi**2 * (point**2 - point + 1 / 6), 0).mean()

    trials = np.unique(np.geomspace(3, count / 2, GENERATORS).astype(int) | 1)
    return lattice(min(trials.tolist(), key=square_error)) + 0.5 / count


def _in_chunks(
    points: Float[np.ndarray, "directions count"], weights: Float[np.ndarray, "2 count"], chunk: int
) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours in different chunks, so that these need about the same space."""
    count = points.shape[1]
    chunk = min(chunk, count)
    chunks = -(-count // chunk)

    def spread(rows, mode):
        rows = np.pad(rows, ((0, 0), (0, chunks * chunk - count)), mode)
        return rows.reshape(len(rows), chunk, chunks).transpose(2, 0, 1)

    return spread(points, "edge"), spread(weights / weights.sum(1, keepdims=True), "constant")
