"""Kernels of fully connected networks of infinite width.

A layer is z = sqrt(weight_var / fan_in) W h + sqrt(bias_var) b with W, b ~ N(0, 1), and h = x or phi(z before): the NTK
parametrisation. In the standard one, W ~ N(0, weight_var / fan_in) and b ~ N(0, bias_var) are trained themselves.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec
from jaxtyping import Array, Float

from theorysim.checks import (
    is_traced,
    require_count,
    require_finite,
    require_nonnegative,
    require_one_of,
    require_positive,
    require_whole,
)
from theorysim.infinite.activation import Activation, as_activation
from theorysim.infinite.covariance import Covariance, activate, constant_like, of_inputs, outer, total
from theorysim.typing import ScalarLike

PerLayer = ScalarLike | Float[Array, " layers"]


class Kernels(NamedTuple):
    """Covariances between two sets of inputs, shape (n1, n2).

    `nngp`: of the outputs at initialisation. `ntk`: of their gradients, sum over parameters. `angle`: between the
    outputs of two inputs, nngp = sqrt(variances) cos(angle); it tells near-duplicates apart, where nngp cannot.
    """

    nngp: Float[Array, "n1 n2"]
    ntk: Float[Array, "n1 n2"]
    angle: Float[Array, "n1 n2"]


def fully_connected(
    activation: Activation | Callable[[Array], Array],
    x1: Float[Array, "n1 d"],
    x2: Float[Array, "n2 _"] | None = None,
    *,
    depth: ScalarLike,
    weight_var: PerLayer = 1.0,
    bias_var: PerLayer = 0.0,
    residual: ScalarLike | None = None,
    layer_norm: bool = False,
    parametrisation: Literal["ntk", "standard"] = "ntk",
    width: PerLayer | None = None,
    biases: bool | None = None,
    normalised: bool = False,
) -> Kernels:
    """Kernels of a network with `depth` hidden layers and one readout (Jacot et al., arXiv:1806.07572, theorem 1).

    With K_0 = weight_var x1 x2^T / d + bias_var and Theta_0 = K_0, each hidden layer maps

        K <- weight_var T(K) + bias_var,    Theta <- K + weight_var T'(K) * Theta.

    ```python
    from theorysim.infinite import fully_connected, relu

    kernels = fully_connected(relu, jnp.eye(3), depth=3, weight_var=2.0, layer_norm=True)
    print(kernels.nngp[0], kernels.ntk[0])
    ```

    **Arguments:**

    - `x1`, `x2`: inputs. `x2=None` is x1 again: the diagonal is then exact.
    - `depth`: hidden layers; may be traced (forward differentiation only).
    - `weight_var`, `bias_var`: one number, or one per layer, shape (depth + 1,), readout last. May be traced.
    - `residual`: each hidden layer but the first is z <- z + residual Dense(phi(z)); 1 / sqrt(depth) has an infinite
      depth limit (Bordelon et al., arXiv:2309.16620).
    - `layer_norm`: phi sees z normalised over its channels, to variance 1.
    - `parametrisation`: with `"standard"`, Theta <- width T(K) + 1 + weight_var T'(K) * Theta, where the 1 is of the
      biases, needs the `width` of the hidden layers: one number, or one per layer, shape (depth,)
      (Sohl-Dickstein et al., arXiv:2001.07301).
    - `biases`: of the standard parametrisation, whether they are trained; by default where bias_var is above 0. With
      `True` and a bias_var of 0 they are trained from 0, as frameworks do.
    - `normalised`: all inputs have one norm. An activation without closed duals then costs no more than relu does (at a
      variance of 1; up to four times the products at 20), to a relative error of 1e-10. So do tanh, softplus and silu,
      whose closed duals are sums of 144 terms, up to variances of about 25.

    With closed duals, errors are of rounding at any variance. Where the inputs differ in norm, an activation without
    them goes by Hermite series, 384 products per entry: for tanh the relative error of T and T' at equal inputs would
    be 2e-12 and 4e-10 at a variance of 5, 1e-9 and 1e-6 at 10. Up to 5, tanh, softplus and silu go the same way. One
    with kinks and no closed duals takes milliseconds per entry. Where an activation jumps, the NTK of equal inputs is
    infinite. A traced parameter, such as the slope of a `leaky_relu`, has derivatives where duals are closed.

    **Raises:** `ValueError` for inputs of unequal dimension or not finite, a depth that is no whole number, a negative
    variance, variances of another number than layers, a `width` where the parametrisation is not standard or none where
    it is, `biases` without it, `normalised` inputs of unequal norm, and variances at which quadrature does not resolve
    the activation. Under a trace, the last is NaN.
    """
    activation = as_activation(activation, traceable=True)
    _check(x1, x2, depth, weight_var, bias_var, parametrisation, width, biases, normalised)
    layers = None if is_traced(depth) else int(depth)
    propagate = _propagate if activation.traced else _propagate_once
    kernels = propagate(
        activation,
        x1,
        x2,
        depth if layers is None else None,
        weight_var,
        bias_var,
        residual,
        width,
        layers=layers,
        layer_norm=layer_norm,
        standard=parametrisation == "standard",
        biases=biases,
        normalised=normalised,
    )
    _refuse_unresolved(activation, kernels)
    return kernels


def _propagate(
    activation,
    x1,
    x2,
    depth,
    weight_var,
    bias_var,
    residual,
    width,
    *,
    layers,
    layer_norm,
    standard,
    biases,
    normalised,
) -> Kernels:
    """`layers` is a depth known while tracing."""
    depth = depth if layers is None else layers

    # Of the NTK, what a layer adds itself is its covariance. It is added where it is used, so that one pass over a
    # matrix computes the deficits and another what is inherited from the layers before.
    def ntk_of(covariance: Covariance, inherited: Array) -> Array:
        return covariance.matrix + inherited if not standard else inherited

    def dense(features: Covariance, tangent: Array, layer: ScalarLike, fan_in: ScalarLike) -> tuple[Covariance, Array]:
        weight, bias = (_of_layer(values, layer, x1) for values in (weight_var, bias_var))
        inherited = weight * tangent
        if standard:
            trained = jnp.asarray(bias > 0 if biases is None else biases, tangent.dtype)
            inherited = inherited + fan_in * features.matrix + trained
        return total((weight, features), (bias, constant_like(features))), inherited

    def branch(covariance: Covariance, inherited: Array, layer: ScalarLike) -> tuple[Covariance, Array]:
        ntk = ntk_of(covariance, inherited)
        if layer_norm:
            stds = outer(covariance.std1, covariance.std2)
            ntk = ntk / jnp.where(stds > 0, stds, 1.0)
            covariance = constant_like(covariance)._replace(deficit=covariance.deficit)
        features, slope = activate(activation, covariance, normalised=normalised or layer_norm)
        return dense(features, slope * ntk, layer, 0.0 if width is None else _of_layer(width, layer - 1, x1))

    def hidden(layer, state):
        covariance, inherited = state
        new, newly_inherited = branch(covariance, inherited, layer)
        if residual is None:
            return new, newly_inherited
        scale = jnp.square(jnp.asarray(residual, inherited.dtype))
        return total((1.0, covariance), (scale, new)), inherited + scale * newly_inherited

    inputs = of_inputs(x1, x2)
    state = dense(inputs, jnp.zeros_like(inputs.deficit), 0, x1.shape[1])
    if layers != 0:
        shallow, state = state, branch(*jax.lax.fori_loop(1, depth, hidden, state), depth)
        if layers is None:
            state = jax.tree.map(lambda deep, shallow: jnp.where(depth > 0, deep, shallow), state, shallow)
    covariance, inherited = state
    return Kernels(covariance.matrix, ntk_of(covariance, inherited), covariance.angle)


# Jitted here, for calls outside of jit to be traced once.
_propagate_once = jax.jit(
    _propagate, static_argnames=("activation", "layers", "layer_norm", "standard", "biases", "normalised")
)


def by_rows(
    fn: Callable[[Float[Array, "rows d"]], Any],
    x: Float[Array, "n d"],
    *,
    rows: int,
    devices: Sequence[Any] | None = None,
) -> Any:
    """`fn(x)`, computed for `rows` rows of x at a time, and spread over `devices`.

    What `fn` makes of a block may be as large as memory allows; what it returns is stacked. A kernel so enters a
    prediction without being stored:

    ```python
    from theorysim.infinite import by_rows, fully_connected, relu

    train, test, coefficients = jnp.eye(4), jnp.ones((10, 4)), jnp.ones(4)
    predicted = by_rows(lambda block: fully_connected(relu, block, train, depth=3).ntk @ coefficients, test, rows=4)
    assert predicted.shape == (10,)
    ```

    **Arguments:** `fn` maps (rows, d) to arrays whose first axis is rows.

    **Returns:** the arrays of `fn`, with n as their first axis.

    **Raises:** `ValueError` for `rows` that are no whole number >= 1.
    """
    require_count(rows=rows)
    devices = jax.devices()[:1] if devices is None else list(devices)
    blocks = -(-len(x) // rows)
    blocks = -(-blocks // len(devices)) * len(devices)
    padded = jnp.pad(x, ((0, blocks * rows - len(x)), (0, 0)), mode="edge").reshape(blocks, rows, x.shape[1])
    mesh = Mesh(np.array(devices), ("block",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("block")
    share = jax.shard_map(
        lambda blocks: jax.lax.map(fn, blocks), mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
    )
    return jax.tree.map(lambda out: out.reshape(-1, *out.shape[2:])[: len(x)], jax.jit(share)(padded))


def _of_layer(values: PerLayer, layer: ScalarLike, x: Array) -> Array:
    values = jnp.asarray(values, x.dtype)
    return values if values.ndim == 0 else values[layer]


def _refuse_unresolved(activation: Activation, kernels: Kernels) -> None:
    """An input at which quadrature fails makes its whole row, or column, NaN."""
    ends = kernels.nngp[:1], kernels.nngp[:, :1]
    if not is_traced(kernels.nngp) and any(np.isnan(end).any() for end in ends):
        raise ValueError(
            f"quadrature does not resolve {activation.name!r} at the variances that these inputs have in some layer: "
            "divide the inputs by their root mean square, lower weight_var, name the activation's kinks, or take one "
            "with closed duals (tanh, softplus, silu, erf, gelu, relu)"
        )


def _check(x1, x2, depth, weight_var, bias_var, parametrisation, width, biases, normalised) -> None:
    for name, x in (("x1", x1), ("x2", x2)):
        if x is not None and jnp.ndim(x) != 2:
            raise ValueError(
                f"{name} has shape {jnp.shape(x)}: give (inputs, dim), a single input as x[None], images as "
                "x.reshape(len(x), -1)"
            )
    if x2 is not None and x1.shape[1] != x2.shape[1]:
        raise ValueError(f"x1 has shape {x1.shape}, x2 {x2.shape}: give inputs of one dimension")
    require_finite(x1=x1, x2=x2)
    require_whole(depth=depth)
    require_nonnegative(weight_var=weight_var, bias_var=bias_var)
    require_one_of(("ntk", "standard"), parametrisation=parametrisation)
    layers = None if is_traced(depth) else int(depth)
    for name, values, wanted in (("weight_var", weight_var, 1), ("bias_var", bias_var, 1), ("width", width, 0)):
        shape = jnp.shape(values) if values is not None else ()
        if layers is not None and shape not in ((), (layers + wanted,)):
            raise ValueError(f"{name} has shape {shape} with depth={layers}: give one number, or {layers + wanted}")
    if parametrisation == "standard":
        if width is None:
            raise ValueError('parametrisation="standard" needs width=: its kernel grows with it')
        require_positive(width=width)
    elif width is not None:
        raise ValueError(
            f'width={width} is of parametrisation="standard"; that of the NTK is at infinite width: leave it out'
        )
    elif biases is not None:
        raise ValueError(
            f'biases={biases}: that is of parametrisation="standard"; in that of the NTK, biases are scaled by '
            "sqrt(bias_var) and trained, so leave it out"
        )
    if normalised and not any(is_traced(x) for x in (x1, x2)):
        norms = np.concatenate([np.linalg.norm(np.asarray(x), axis=1) for x in (x1, x2) if x is not None])
        if np.ptp(norms) > 1e-5 * norms.max():
            raise ValueError(
                f"normalised=True, but the inputs' norms go from {norms.min():.6g} to {norms.max():.6g}: "
                "divide each input by its norm, or leave normalised out"
            )
