"""The tangent kernel of a finite network: sums over parameters of df(x1)/dp df(x2)/dp (Jacot et al., arXiv:1806.07572).

`apply(params, x)` maps n inputs to shape (n, outputs), each input by itself; `params` is any tree of arrays, and its
floating leaves are the parameters. flax linen has `network.apply`; with flax nnx,

```python
graph, params = nnx.split(network)
kernel = empirical_ntk(lambda params, x: nnx.merge(graph, params)(x), params, x)
```

Where a weight matrix W meets one vector h an input, df/dW = h delta^T with delta = df/d(hW). Its share of the kernel is
(h . h') (delta . delta'), and no Jacobian of the size of W is formed. Such layers are found in the traced program; all
other parameters go by their Jacobians (after Novak et al., arXiv:2206.08720).
"""

import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.extend.core.primitives import dot_general_p, jit_p
from jaxtyping import Array, Float, PyTree, Shaped

from theorysim.checks import require_finite

Params = PyTree[Any]
Apply = Callable[[Params, Shaped[Array, "n ..."]], Float[Array, "n outputs"]]
Program: TypeAlias = Any  # a closed jaxpr, whose public home and types differ between releases of jax
MEMORY = 2**30
# Operations that keep the entries of a parameter, and so the inner products of derivatives.
KEEPING = ("reshape", "transpose", "squeeze", "copy", "convert_element_type")


def empirical_ntk(
    apply: Apply,
    params: Params,
    x1: Shaped[Array, "n1 ..."],
    x2: Shaped[Array, "n2 ..."] | None = None,
    *,
    memory: int = MEMORY,
) -> Float[Array, "n1 n2"]:
    """The kernel's mean over outputs: sum over outputs o and parameters p of df_o(x1)/dp df_o(x2)/dp, over `outputs`.

    Compiled once for each `apply` and shape. Differentiable and vmappable in `params`.

    **Arguments:**

    - `x2=None` is x1 again, at half the work.
    - `memory`: bytes for derivatives: it decides how many inputs are taken at a time.

    **Raises:** `ValueError` for inputs that are not finite, an `apply` that does not return (n, outputs), and a
    `memory` that does not hold one input.
    """
    return _checked(_kernel, apply, params, x1, x2, memory, mean=True)


def empirical_ntk_blocks(
    apply: Apply,
    params: Params,
    x1: Shaped[Array, "n1 ..."],
    x2: Shaped[Array, "n2 ..."] | None = None,
    *,
    memory: int = MEMORY,
) -> Float[Array, "n1 n2 outputs outputs"]:
    """The kernel between all pairs of outputs; otherwise as [`empirical_ntk`].

    **Raises:** as [`empirical_ntk`].
    """
    return _checked(_kernel, apply, params, x1, x2, memory, mean=False)


def empirical_ntk_product(
    apply: Apply,
    params: Params,
    x1: Shaped[Array, "n1 ..."],
    vector: Float[Array, "n2 outputs"],
    x2: Shaped[Array, "n2 ..."] | None = None,
) -> Float[Array, "n1 outputs"]:
    """The kernel of [`empirical_ntk_blocks`] times a vector, sum over x2 and its outputs; the kernel is never formed.

    One backward pass over x2 and one forward derivative over x1: the time and memory of a training step.

    **Raises:** `ValueError` as [`empirical_ntk`] does.
    """
    return _checked(_product, apply, params, x1, x2, vector)


def _checked(fn: Callable[..., Any], apply: Apply, params: Params, x1: Any, x2: Any, *args: Any, **options: Any) -> Any:
    require_finite(x1=x1, x2=x2)
    seen = jax.eval_shape(apply, params, x1).shape
    if len(seen) != 2 or seen[0] != len(x1):
        raise ValueError(f"apply maps inputs of shape {x1.shape} to {seen}: let it return (n, outputs), n={len(x1)}")
    return fn(apply, params, x1, x2, *args, **options)


@partial(jax.jit, static_argnames="apply")
def _product(apply: Apply, params: Params, x1: Array, x2: Array | None, vector: Array) -> Array:
    parameters, rebuild = _parameters(params)
    x2 = x1 if x2 is None else x2
    _, pullback = jax.vjp(lambda leaves: apply(rebuild(leaves), x2), parameters)
    (gradient,) = pullback(vector)
    return jax.jvp(lambda leaves: apply(rebuild(leaves), x1), (parameters,), (gradient,))[1]


@partial(jax.jit, static_argnames=("apply", "memory", "mean"))
def _kernel(apply: Apply, params: Params, x1: Array, x2: Array | None, memory: int, *, mean: bool) -> Array:
    parameters, rebuild = _parameters(params)
    network = _trace(lambda leaves, x: apply(rebuild(leaves), x[None])[0], parameters, x1[0])
    derivatives = jax.vmap(partial(_derivatives, network, parameters))
    contract = partial(_contract, mean=mean)

    rows = _rows(network, memory, mean)
    if x2 is None and rows >= len(x1):
        seen = derivatives(x1)
        return contract(seen, seen)
    first = _blocks(x1, rows)
    second = first if x2 is None else _blocks(x2, rows)
    counts = len(first), len(second)
    i, j = np.triu_indices(counts[0]) if x2 is None else np.indices(counts).reshape(2, -1)
    pairs = jax.lax.map(lambda ij: contract(derivatives(first[ij[0]]), derivatives(second[ij[1]])), (i, j))
    kernel = jnp.zeros((*counts, *pairs.shape[1:]), pairs.dtype).at[i, j].set(pairs)
    if x2 is None:
        swapped = (0, 2, 1) if mean else (0, 2, 1, 4, 3)
        kernel = kernel.at[j, i].set(pairs.transpose(swapped))
    n1, n2 = (count * block.shape[1] for count, block in zip(counts, (first, second), strict=True))
    kernel = kernel.swapaxes(1, 2).reshape(n1, n2, *kernel.shape[4:])
    return kernel[: len(x1), : len(x1 if x2 is None else x2)]


def _parameters(params: Params) -> tuple[list[Array], Callable[[list[Array]], Params]]:
    """The floating leaves, and the way back: counters and keys are none of the parameters."""
    leaves, tree = jax.tree.flatten(params)
    chosen = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)]

    def rebuild(parameters: list[Array]) -> Params:
        new = dict(zip(chosen, parameters, strict=True))
        return jax.tree.unflatten(tree, [new.get(i, leaf) for i, leaf in enumerate(leaves)])

    return [jnp.asarray(leaves[i]) for i in chosen], rebuild


class _Layer(NamedTuple):
    """A weight matrix, as the number of its leaf, and which operand of its product the layer's input is."""

    leaf: int
    operand: int


class _Network(NamedTuple):
    """The program of one input, and its dense layers by the number of their equation."""

    program: Program
    layers: dict[int, _Layer]


def _trace(fn: Callable[[list[Array], Array], Array], parameters: list[Array], x: Array) -> _Network:
    nested, shape = jax.make_jaxpr(fn, return_shape=True)(parameters, x)
    del shape
    # Once more, without nested calls of jit.
    program: Program = jax.make_jaxpr(lambda *args: _evaluate(nested, args))(*parameters, x)
    jaxpr = program.jaxpr
    leaf_of = dict(zip(jaxpr.invars, range(len(parameters)), strict=False))
    layers, uses = {}, Counter()
    for number, equation in enumerate(jaxpr.eqns):
        known = [None if isinstance(v, core.Literal) else leaf_of.get(v) for v in equation.invars]
        if equation.primitive.name in KEEPING and known[0] is not None and _is_float(equation.outvars[0]):
            leaf_of[equation.outvars[0]] = known[0]
            continue
        uses.update(known)
        if equation.primitive is dot_general_p and known.count(None) == 1:
            operand = known.index(None)
            contracted, batched = equation.params["dimension_numbers"]
            shape = equation.invars[operand].aval.shape
            if not batched[0] and math.prod(shape) == math.prod(shape[axis] for axis in contracted[operand]):
                layers[number] = _Layer(next(leaf for leaf in known if leaf is not None), operand)
    uses.update(leaf_of.get(v) for v in jaxpr.outvars if not isinstance(v, core.Literal))
    return _Network(program, {number: layer for number, layer in layers.items() if uses[layer.leaf] == 1})


def _is_float(variable: Any) -> bool:
    return jnp.issubdtype(variable.aval.dtype, jnp.floating)


def _evaluate(program: Program, args: Any, shifts: dict[int, Array] | None = None, seen: Any = None) -> list:
    """The program's outputs. `shifts` are added to what equations return; their operands are left in `seen`."""
    jaxpr = program.jaxpr
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*program.consts, *args], strict=True))

    def read(variables):
        return [v.val if isinstance(v, core.Literal) else values[v] for v in variables]

    for number, equation in enumerate(jaxpr.eqns):
        operands = read(equation.invars)
        if equation.primitive is jit_p:
            results = _evaluate(equation.params["jaxpr"], operands)
        else:
            results = equation.primitive.bind(*operands, **equation.primitive.get_bind_params(equation.params))
            results = results if equation.primitive.multiple_results else [results]
        if shifts and number in shifts:
            results, seen[number] = [results[0] + shifts[number]], operands
        values.update(zip(equation.outvars, results, strict=True))
    return read(jaxpr.outvars)


class _Derivatives(NamedTuple):
    """Of all outputs for some inputs: each dense layer's input and df/d(its output); the Jacobians of the rest."""

    features: list[Float[Array, "n fan_in"]]
    deltas: list[Float[Array, "n outputs fan_out"]]
    jacobians: list[Float[Array, "n outputs size"]]


def _derivatives(network: _Network, parameters: list[Array], x: Array) -> _Derivatives:
    """Of one input: without the axis n."""
    program, layers = network
    dense = {layer.leaf for layer in layers.values()}
    others = {i: p for i, p in enumerate(parameters) if i not in dense}
    shifts = {number: jnp.zeros_like(_result(program, number)) for number in layers}

    def outputs(others, shifts):
        seen = {}
        full = [others.get(i, p) for i, p in enumerate(parameters)]
        (result,) = _evaluate(program, [*full, x], shifts, seen)
        return result, [seen[number][layer.operand].ravel() for number, layer in layers.items()]

    result, pullback, features = jax.vjp(outputs, others, shifts, has_aux=True)
    jacobians, deltas = jax.vmap(pullback)(jnp.eye(len(result), dtype=result.dtype))
    flat = [[leaf.reshape(len(result), -1) for leaf in tree.values()] for tree in (deltas, jacobians)]
    return _Derivatives(features, *flat)


def _result(program: Program, number: int) -> jax.ShapeDtypeStruct:
    aval = program.jaxpr.eqns[number].outvars[0].aval
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


def _contract(first: _Derivatives, second: _Derivatives, *, mean: bool) -> Array:
    product = partial(jnp.einsum, "iok,jok->ij" if mean else "iok,jpk->ijop", precision="highest")
    kernel = sum(map(product, first.jacobians, second.jacobians), jnp.zeros(()))
    for h1, h2, delta1, delta2 in zip(first.features, second.features, first.deltas, second.deltas, strict=True):
        gram = jnp.matmul(h1, h2.T, precision="highest")
        kernel = kernel + product(delta1, delta2) * (gram if mean else gram[:, :, None, None])
    return kernel / _outputs(first) if mean else kernel


def _outputs(derivatives: _Derivatives) -> int:
    return [*derivatives.deltas, *derivatives.jacobians][0].shape[1]


def _rows(network: _Network, memory: int, mean: bool) -> int:
    """How many inputs: their derivatives, those of all that the program computes, and the kernel between them."""
    program, layers = network
    invars, equations = program.jaxpr.invars[:-1], program.jaxpr.eqns
    (result,) = program.out_avals
    dense = {layer.leaf for layer in layers.values()}
    each = sum(v.aval.size for i, v in enumerate(invars) if i not in dense)
    each += sum(v.aval.size for equation in equations for v in equation.outvars if _is_float(v))
    fixed = sum(equations[number].invars[layer.operand].aval.size for number, layer in layers.items())
    one = 4 * result.dtype.itemsize * (fixed + result.size * each)
    pair = 3 * result.dtype.itemsize * (1 if mean else result.size**2)
    if one + pair > memory:
        raise ValueError(f"memory={memory}: the derivatives of one input take {one + pair} bytes; give that or more")
    return int((math.sqrt(one**2 + 4 * pair * memory) - one) / (2 * pair))


def _blocks(x: Array, rows: int) -> Array:
    """Shape (blocks, rows, ...), of even size; the last is filled up with the last input."""
    count = math.ceil(len(x) / rows)
    rows = math.ceil(len(x) / count)
    padding = [(0, count * rows - len(x)), *[(0, 0)] * (x.ndim - 1)]
    return jnp.pad(x, padding, mode="edge").reshape(count, rows, *x.shape[1:])
