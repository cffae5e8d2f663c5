"""Deep nonlinear networks in the feature-learning limit: dynamical mean-field theory, solved in one causal pass.

Neurons of layer l are independent samples of the fields (pairs i = (time t, input a); Delta = y - f)

    h^l = u^l + (A^{l-1} + c Delta Phi^{l-1}) g^l,    u^l ~ N(0, Phi^{l-1}),    g^l = phi'(h^l) z^l,
    z^l = r^l + (B^l + c Delta G^{l+1}) phi(h^l),     r^l ~ N(0, G^{l+1}),      c = learning_rate gamma0 / P,

with Phi^l = <phi(h^l) phi(h^l)>, G^l = <g^l g^l>, A^l = <d phi(h^l) / d r^l>, B^l = <d g^{l+1} / d u^{l+1}>, and at the
ends Phi^0 = X X^T / D, G^{L+1} = 1, A^0 = B^L = 0; the outputs are f = <z^L phi(h^L)> / gamma0. The terms with A and
Delta sum over earlier times, B over times up to the present: its equal-time part, <phi''(h) z> and more, is not small.
(Bordelon & Pehlevan, arXiv:2205.09653, in discrete time. Their A and B carry 1 / gamma0.)

For full-batch gradient descent everything at time t follows from kernels at times up to t, so that there is no fixed
point to iterate: forward through the layers, backward, next time.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float
from scipy.stats import qmc

from theorysim.checks import require_float64
from theorysim.infinite.activation import Activation, as_activation
from theorysim.infinite.mup.solution import Solution, check, covariance_root
from theorysim.quadrature import derivative
from theorysim.trajectory import Trajectory
from theorysim.typing import Scalar, ScalarLike, as_floats

Fields = Float[Array, "pairs samples"]
Kernel = Float[Array, "pairs pairs"]

EARLY_TIMES = 2
SOBOL_POINTS = 2**12
FLOOR = 1e-10  # of a kernel's diagonal, added to it: a source that stands still has a singular covariance


class Derivatives(NamedTuple):
    """d phi(h) and d g by one Gaussian source, for each sample."""

    phi: Float[Array, "pairs pairs samples"]
    g: Float[Array, "pairs pairs samples"]


class Layer(NamedTuple):
    """Everything known of a layer; rows of the future are 0.

    `factors` (of the covariance, by Cholesky) and `by` are over the sources that move in time, "u" and "r": not u in
    the first layer, nor r in the last.
    """

    phi: Fields
    g: Fields
    features: Kernel
    gradients: Kernel
    factors: dict[str, Kernel]
    by: dict[str, Derivatives]


class Present(NamedTuple):
    """A layer's forward pass at one time: phi(h), phi'(h), phi''(h), and d h by the sources that move."""

    phi: Float[Array, "inputs samples"]
    slope: Float[Array, "inputs samples"]
    curvature: Float[Array, "inputs samples"]
    d_h: dict[str, Float[Array, "inputs pairs samples"]]


class Noise(NamedTuple):
    """Standard normal sources of a layer: over inputs, over pairs, or one number for all."""

    u: Float[Array, "sources_u samples"]
    r: Float[Array, "sources_r samples"]


def dmft(
    activation: Activation | Callable[[Array], Array],
    x: Float[Array, "inputs dim"],
    targets: Float[Array, " inputs"],
    *,
    depth: int,
    gamma0: ScalarLike,
    learning_rate: ScalarLike,
    steps: int,
    key: Array,
    samples: int = 1024,
    batches: int = 8,
    mesh: Mesh | None = None,
) -> Solution:
    """Gradient descent on a network with `depth` hidden layers of infinite width, exact at any learning rate.

    `batches` independent systems of `samples` neurons per layer are solved one after another, and averaged; the
    standard error comes from their spread (and is NaN for one). Neurons come in pairs with opposite r, so that f(0) = 0
    exactly, and their sources at the first times are Sobol's points: best where `samples` is a power of 2. The bias
    of a system is O(1 / samples), below its error where `samples` is well above steps times inputs. Under `vmap` over
    `gamma0` or `learning_rate`, a common `key` is common noise: differences along a curve are far more precise than
    the curve.

    Time O(samples (steps inputs)^3), memory 4 (depth - 1) samples (steps inputs)^2 numbers. With `mesh`, neurons are
    spread over all its devices, which must divide `samples` / 2.

    `activation` is elementwise and smooth (two derivatives are taken); it is a static argument.

    ```python
    from theorysim.infinite import mup, tanh

    mesh = jax.make_mesh((len(jax.devices()),), ("neurons",))
    problem = {"depth": 2, "gamma0": 1.0, "learning_rate": 0.3, "steps": 2, "key": jax.random.key(0)}
    limit = mup.dmft(tanh, jnp.eye(2), jnp.array([1.0, -1.0]), **problem, samples=128, mesh=mesh)
    print(limit.value.loss, limit.error.loss)
    ```

    **Raises:** `ValueError` for shapes that do not match, values that are not finite, `gamma0` or `learning_rate` <= 0,
    counts below 1, `samples` that do not divide into pairs, and for less than float64 at depth > 1, where covariances
    are singular to 1e-10.
    """
    activation = as_activation(activation)
    x, targets, gamma0, learning_rate = as_floats(x, targets, gamma0, learning_rate)
    check(x, targets, gamma0, learning_rate, depth=depth, steps=steps, samples=samples, batches=batches)
    shards = 1 if mesh is None else mesh.size
    if samples % (2 * shards):
        raise ValueError(f"samples={samples}: give a multiple of {2 * shards}: neurons in pairs, on {shards} device(s)")
    if depth > 1:
        require_float64("a second hidden layer, whose covariances are singular to 1e-10,", x=x)
    if mesh is not None:  # however its axes are typed, the compiler places what is not said
        mesh = Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))
    return _solve(activation, x, targets, gamma0, learning_rate, key, depth, steps, samples, batches, mesh)


@partial(jax.jit, static_argnums=(0, 6, 7, 8, 9, 10))
def _solve(
    activation: Callable[[Array], Array],
    x: Float[Array, "inputs dim"],
    targets: Float[Array, " inputs"],
    gamma0: Scalar,
    learning_rate: Scalar,
    key: Array,
    depth: int,
    steps: int,
    samples: int,
    batches: int,
    mesh: Mesh | None,
) -> Solution:
    def system(key):
        noise = _draw(key, x, depth, steps, samples, mesh)
        return _descend(activation, x, targets, gamma0, learning_rate, noise, steps, mesh)

    runs = jax.lax.map(system, jax.random.split(key, batches))
    error = jax.tree.map(lambda run: run.std(0, ddof=1) / jnp.sqrt(batches), runs)
    value = jax.tree.map(lambda run: run.mean(0), runs)
    return Solution(value, error, jnp.isfinite(value.loss).all())


def _over_samples(fields: Array, mesh: Mesh | None) -> Array:
    """Spread the last axis over the devices."""
    if mesh is None:
        return fields
    spec = PartitionSpec(*[None] * (fields.ndim - 1), mesh.axis_names)
    return jax.lax.with_sharding_constraint(fields, NamedSharding(mesh, spec))


def _draw(
    key: Array, x: Float[Array, "inputs dim"], depth: int, steps: int, samples: int, mesh: Mesh | None
) -> list[Noise]:
    """Each layer's noise. Samples in pairs: the same u, opposite r.

    The first times matter most, since later ones are close to them: there, Sobol's points.
    """
    count, dim = x.shape
    pairs = (steps + 1) * count
    shapes = [(pairs if i else min(count, dim), pairs if i < depth - 1 else 1) for i in range(depth)]
    sizes = [size for shape in shapes for size in shape]
    early = np.concatenate([np.arange(size) < EARLY_TIMES * count for size in sizes])
    half = normals(key, early, samples // 2).astype(x.dtype)
    sources = jnp.split(half, np.cumsum(sizes)[:-1])

    def mirrored(half, sign):
        return _over_samples(jnp.stack([half, sign * half], -1).reshape(-1, samples), mesh)

    noise = [Noise(mirrored(u, 1), mirrored(r, -1)) for u, r in zip(sources[::2], sources[1::2], strict=True)]
    noise[0] = noise[0]._replace(u=covariance_root(x) @ noise[0].u)
    return noise


def normals(key: Array, quasi: Bool[np.ndarray, " dims"], count: int) -> Float[Array, "dims count"]:
    """Standard normals; in the `quasi` dimensions Sobol's points, shifted at random and hence without bias.

    Those are best where `count` is a power of 2; beyond `SOBOL_POINTS` they start again, with another shift.
    """
    size = min(count, SOBOL_POINTS)
    blocks = -(-count // size)
    points = qmc.Sobol(int(quasi.sum()), rng=0).random_base2((size - 1).bit_length())[:size].T
    uniform = jax.random.uniform(key, (len(quasi), count))
    shifts = jnp.repeat(uniform[quasi, :blocks], size, 1)[:, :count]
    shifted = (jnp.tile(jnp.asarray(points, uniform.dtype), blocks)[:, :count] + shifts) % 1
    smallest = jnp.finfo(uniform.dtype).eps / 2
    return ndtri(jnp.clip(uniform.at[quasi].set(shifted), smallest, 1 - smallest))


class Now(NamedTuple):
    """The time t: its first pair, c (y - f) at earlier times (0 later), and unit vectors of its own pairs."""

    row: Array
    pull: Float[Array, " pairs"]
    itself: Float[Array, "inputs pairs"]

    @property
    def nothing(self) -> Float[Array, "inputs pairs"]:
        """No response."""
        return jnp.zeros_like(self.itself)

    def put(self, history: Array, rows: Array) -> Array:
        """The history with the rows of this time."""
        return jax.lax.dynamic_update_slice_in_dim(history, rows, self.row, 0)

    def take(self, history: Array) -> Array:
        """The rows of this time."""
        return jax.lax.dynamic_slice_in_dim(history, self.row, len(self.itself), 0)


def _descend(
    activation: Callable[[Array], Array],
    x: Float[Array, "inputs dim"],
    targets: Float[Array, " inputs"],
    gamma0: Scalar,
    learning_rate: Scalar,
    noise: list[Noise],
    steps: int,
    mesh: Mesh | None,
) -> Trajectory:
    count, times = x.shape[0], steps + 1
    pairs = times * count
    data = x @ x.T / x.shape[1]
    rate = learning_rate * gamma0 / count

    def step(carry: Any, t: Array) -> Any:
        layers, pull = carry
        nothing = jnp.zeros((count, pairs), x.dtype)
        itself = jax.lax.dynamic_update_slice_in_dim(nothing, jnp.eye(count, dtype=x.dtype), t * count, 1)
        now = Now(t * count, pull, itself)
        layers, overlap = _pass(activation, list(layers), noise, data, now)
        outputs = overlap / gamma0
        return (layers, jax.lax.dynamic_update_slice(pull, rate * (targets - outputs), (now.row,))), outputs

    start = [_empty(layer, noise, pairs, mesh) for layer in range(len(noise))]
    (layers, _), outputs = jax.lax.scan(step, (start, jnp.zeros(pairs, x.dtype)), jnp.arange(times))
    loss = jnp.square(targets[None, :] - outputs).mean(1) / 2

    def whole(name: str) -> Float[Array, "depth times inputs times inputs"]:
        """Kernels, from rows that end at their own time."""
        lower, past = jnp.stack([getattr(layer, name) for layer in layers]), jnp.tri(pairs, dtype=bool)
        kernels = jnp.where(past[None], lower, lower.swapaxes(1, 2))
        return kernels.reshape(len(noise), times, count, times, count)

    return Trajectory(loss, outputs, whole("features"), whole("gradients"))


def _empty(layer: int, noise: list[Noise], pairs: int, mesh: Mesh | None) -> Layer:
    dtype, samples = noise[0].u.dtype, noise[0].u.shape[1]
    kernel = jnp.zeros((pairs, pairs), dtype)
    fields = _over_samples(jnp.zeros((pairs, samples), dtype), mesh)
    derivatives = _over_samples(jnp.zeros((pairs, pairs, samples), dtype), mesh)
    moving = ["u"] * (layer > 0) + ["r"] * (layer < len(noise) - 1)
    return Layer(
        phi=fields,
        g=fields,
        features=kernel,
        gradients=kernel,
        factors=dict.fromkeys(moving, kernel),
        by=dict.fromkeys(moving, Derivatives(derivatives, derivatives)),
    )


def _pass(
    activation: Callable[[Array], Array], layers: list[Layer], noise: list[Noise], data: Array, now: Now
) -> tuple[list[Layer], Float[Array, " inputs"]]:
    """All layers at one time: Phi and A come from below, G and B from above; and <z phi(h)> in the last layer."""
    presents = []
    features, a = jnp.tile(data, now.itself.shape[1] // len(data)), now.nothing
    for i, layer in enumerate(layers):
        layers[i], present, features, a = _forward(activation, layer, noise[i], features, a, now)
        presents.append(present)
    gradients, b, overlaps = jnp.ones_like(now.itself), now.nothing, []
    for i in reversed(range(len(layers))):
        layers[i], overlap, gradients, b = _backward(layers[i], noise[i], presents[i], gradients, b, now)
        overlaps.append(overlap)
    return layers, overlaps[0]


def _forward(
    activation: Callable[[Array], Array], layer: Layer, noise: Noise, features: Array, a: Array, now: Now
) -> tuple[Layer, Present, Array, Array]:
    """h = u + (A + c Delta Phi) g; with its rows and d h, Phi of this layer, and A for the next."""
    slope = derivative(activation)
    layer, u = _source(layer, "u", noise.u, features, now)
    gain = a + now.pull[None, :] * features
    h = u + gain @ layer.g
    phi, first, second = activation(h), slope(h), derivative(slope)(h)
    of_itself = {"u": now.itself, "r": now.nothing}
    d_h = {name: of_itself[name][:, :, None] + jnp.tensordot(gain, by.g, 1) for name, by in layer.by.items()}
    d_phi = {name: first[:, None, :] * d for name, d in d_h.items()}
    history = now.put(layer.phi, phi)
    features = phi @ history.T / phi.shape[1]
    layer = layer._replace(
        phi=history,
        features=now.put(layer.features, features),
        by={name: by._replace(phi=now.put(by.phi, d_phi[name])) for name, by in layer.by.items()},
    )
    return layer, Present(phi, first, second, d_h), features, _response(d_phi, "r", now)


def _backward(
    layer: Layer, noise: Noise, present: Present, gradients: Array, b: Array, now: Now
) -> tuple[Layer, Array, Array, Array]:
    """z = r + (B + c Delta G) phi(h), g = phi'(h) z; with d z, G of this layer, and B for the one below."""
    phi, first, second, d_h = present
    layer, r = _source(layer, "r", noise.r, gradients, now)
    gain = b + now.pull[None, :] * gradients
    z = r + gain @ layer.phi
    g = first * z
    of_itself = {"u": now.nothing, "r": now.itself}
    d_z = {name: of_itself[name][:, :, None] + jnp.tensordot(gain, by.phi, 1) for name, by in layer.by.items()}
    d_g = {name: (second * z)[:, None, :] * d_h[name] + first[:, None, :] * d for name, d in d_z.items()}
    history = now.put(layer.g, g)
    gradients = g @ history.T / g.shape[1]
    layer = layer._replace(
        g=history,
        gradients=now.put(layer.gradients, gradients),
        by={name: by._replace(g=now.put(by.g, d_g[name])) for name, by in layer.by.items()},
    )
    return layer, (z * phi).mean(-1), gradients, _response(d_g, "u", now)


def _source(layer: Layer, name: str, noise: Array, covariance: Array, now: Now) -> tuple[Layer, Array]:
    """A source at this time, given itself at earlier ones; one that stands still is its noise."""
    if name not in layer.factors:
        return layer, noise
    factor = extend(layer.factors[name], covariance, now.row)
    return layer._replace(factors={**layer.factors, name: factor}), now.take(factor) @ noise


def _response(derivatives: dict[str, Array], name: str, now: Now) -> Float[Array, "inputs pairs"]:
    """The mean over neurons of derivatives by a source; 0 by one that stands still."""
    return derivatives[name].mean(-1) if name in derivatives else now.nothing


def extend(factor: Kernel, rows: Float[Array, "new pairs"], start: Array) -> Kernel:
    """The Cholesky factor of a kernel, of which new `rows` are known, up to and including their own columns.

    `factor` is 0 from the row `start` on. Column by column, in plain operations: batched calls of LAPACK
    on several devices can wait for each other.
    """
    new, pairs = rows.shape
    own = start + jnp.arange(new)
    floor = FLOOR * jnp.take_along_axis(rows, own[:, None], 1)[:, 0]

    def column(j, factor):
        rest = rows[:, j] - jax.lax.dynamic_slice_in_dim(factor, start, new, 0) @ factor[j]
        root = jnp.where(own == j, jnp.sqrt(jnp.maximum(rest, 0.0) + floor), 0.0)
        pivot = factor[j, j] + root.sum()  # one of the two, or in the future none
        entry = jnp.where(own > j, rest / jnp.where(pivot > 0, pivot, 1.0), root)
        return jax.lax.dynamic_update_slice(factor, entry[:, None], (start, j))

    return jax.lax.fori_loop(0, pairs, column, factor)
