"""Tangent kernels of finite networks, against the contraction of Jacobians, for many ways to use a parameter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from theorysim.networks import MLP, empirical_ntk, empirical_ntk_blocks, empirical_ntk_product, tangent

X = jax.random.normal(jax.random.key(0), (5, 4))
OTHER = jax.random.normal(jax.random.key(1), (3, 4))
IMAGES = jax.random.normal(jax.random.key(2), (5, 6, 6, 2))


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def ntk_parametrised():
    network = MLP(width=16, depth=2, activation=jnp.tanh, weight_var=1.5, bias_var=0.2, outputs=3)
    return network.apply, network.init(jax.random.key(2), X), X


def linen_dense():
    doubles = {"param_dtype": float}
    layers = [linen.Dense(7, **doubles), linen.gelu, linen.LayerNorm(**doubles), linen.Dense(3, **doubles)]
    network = linen.Sequential(layers)
    return jax.jit(network.apply), network.init(jax.random.key(3), X), X


def linen_convolution():
    layers = [linen.Conv(4, (3, 3)), linen.relu, lambda x: x.reshape(len(x), -1), linen.Dense(3)]
    network = linen.Sequential(layers)  # single precision, as it is by default: rounding, not the formula, is left
    return network.apply, network.init(jax.random.key(4), IMAGES), IMAGES


def nnx_with_a_counter():
    network = nnx.Sequential(
        nnx.Linear(4, 7, rngs=nnx.Rngs(0), param_dtype=float),
        nnx.relu,
        nnx.Dropout(0.5, deterministic=True, rngs=nnx.Rngs(1)),
        nnx.Linear(7, 3, rngs=nnx.Rngs(2), param_dtype=float),
    )
    graph, params = nnx.split(network)
    return lambda params, x: nnx.merge(graph, params)(x), params, X


def tied():
    """One matrix twice, once transposed; one by itself and transposed before its product; one from the left."""
    params = {"tied": normal(5, 6, 4), "own": normal(6, 3, 4), "left": normal(7, 4, 4), "scale": jnp.asarray(0.7)}

    def apply(params, x):
        h = jnp.tanh(x @ params["tied"].T) @ params["tied"]
        h = jnp.sin((params["left"].T @ h.T).T)
        return params["scale"] * (h @ params["own"].T)

    return apply, params, X


def shared_over_positions():
    """A matrix on each of two tokens, in a loop; a table looked up; a product of two parameters; one not used."""
    params = [normal(8, 2, 2), normal(9, 8, 4), normal(10, 4, 3), normal(11, 3, 3), normal(12, 5)]

    def apply(params, x):
        tokens = x.reshape(len(x), 2, 2)
        tokens = jax.lax.fori_loop(0, 2, lambda _, h: jnp.tanh(h @ params[0]), tokens).reshape(len(x), 4)
        embedded = params[1][jnp.argmax(x, 1)]
        return (tokens + embedded) @ (params[2] @ params[3])

    return apply, params, X


def all_outputs_are_parameters():
    return lambda params, x: jnp.broadcast_to(params, (len(x), 3)), normal(13, 3), X


NETWORKS = [
    ntk_parametrised,
    linen_dense,
    linen_convolution,
    nnx_with_a_counter,
    tied,
    shared_over_positions,
    all_outputs_are_parameters,
]


def by_jacobians(apply, params, x1, x2):
    leaves, tree = jax.tree.flatten(params)
    floating = {i: leaf for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)}

    def rows(x):
        def outputs(floating):
            return apply(jax.tree.unflatten(tree, [floating.get(i, leaf) for i, leaf in enumerate(leaves)]), x)

        jacobians = jax.tree.leaves(jax.jacrev(outputs)(floating))
        return jnp.concatenate([leaf.reshape(len(x), 3, -1) for leaf in jacobians], 2)

    return jnp.einsum("iop,jqp->ijoq", rows(x1), rows(x2))


@pytest.mark.parametrize("network", NETWORKS)
def test_kernels_are_the_contraction_of_jacobians(network):
    apply, params, x = network()
    other = x[1:4] * 0.9
    exact = jax.jit(lambda params: by_jacobians(apply, params, x, other))(params)
    single = any(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    blocks = empirical_ntk_blocks(apply, params, x, other)
    np.testing.assert_allclose(blocks, exact, rtol=0, atol=(1e-6 if single else 1e-13) * float(abs(exact).max()))


def test_the_mean_is_over_the_outputs_of_the_blocks():
    apply, params, x = tied()
    mean = jnp.einsum("ijoo->ij", empirical_ntk_blocks(apply, params, x)) / 3
    np.testing.assert_allclose(empirical_ntk(apply, params, x), mean, rtol=1e-11, atol=1e-11)


def test_a_product_is_that_with_the_kernel():
    apply, params, x = tied()
    kernel = empirical_ntk_blocks(apply, params, x)
    for other, columns in ((None, kernel), (x[1:4], kernel[:, 1:4])):
        vector = normal(14, columns.shape[1], 3)
        product = empirical_ntk_product(apply, params, x, vector, other)
        np.testing.assert_allclose(product, jnp.einsum("ijop,jp->io", columns, vector), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("network", "count"), [(ntk_parametrised, 3), (linen_convolution, 1), (tied, 2)])
def test_dense_layers_are_found(network, count):
    """All of the MLP; the readout of the convolution; of the tied network, the two that are used once."""
    apply, params, x = network()
    parameters, rebuild = tangent._parameters(params)
    traced = tangent._trace(lambda leaves, x: apply(rebuild(leaves), x[None])[0], parameters, x[0])
    assert len(traced.layers) == count


@pytest.mark.parametrize(
    ("kernel", "x2", "memory"), [(empirical_ntk, normal(16, 7, 4), 40_000), (empirical_ntk_blocks, None, 60_000)]
)
def test_blocks_of_inputs_make_the_same_kernel(kernel, x2, memory):
    apply, params, _ = ntk_parametrised()
    x1 = normal(15, 13, 4)
    whole = kernel(apply, params, x1, x2)
    np.testing.assert_allclose(kernel(apply, params, x1, x2, memory=memory), whole, rtol=1e-12, atol=1e-12)


def test_blocks_respect_their_memory():
    """A matrix on eight tokens: the derivatives of all inputs at once take 60 MB, the kernel and its blocks 1 MB."""
    layers = [linen.Dense(64), linen.relu, lambda x: x.reshape(len(x), 8, 8), linen.Dense(512), lambda x: x[:, 0, :3]]
    network = linen.Sequential(layers)
    x, memory = normal(17, 256, 16), 2_000_000
    params = network.init(jax.random.key(4), x)

    def temporaries(memory):
        compiled = tangent._kernel.lower(network.apply, params, x, None, memory, mean=True).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(memory) < memory + 2 * 256**2 * 8
    assert temporaries(2**30) > 20e6


def test_one_trace_serves_all_calls():
    traces = []

    def apply(params, x):
        traces.append(None)
        return jnp.tanh(x @ params)

    for scale in (1.0, 2.0):
        empirical_ntk(apply, scale * normal(18, 4, 3), X)
    assert len(traces) <= 3  # the check of the shape, once a call, and the kernel


def test_a_network_may_close_over_what_is_traced():
    params = MLP(width=16, depth=1, activation=jnp.tanh).init(jax.random.key(2), X)

    def kernel(weight_var):
        network = MLP(width=16, depth=1, activation=jnp.tanh, weight_var=weight_var)
        return empirical_ntk(network.apply, params, X)

    mapped = jax.jit(jax.vmap(kernel))(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(mapped, [kernel(1.0), kernel(2.0)], rtol=1e-12)


def test_a_kernel_has_derivatives_in_the_parameters():
    params = normal(19, 4, 3)

    @jax.jit
    def trace(size):
        return jnp.trace(empirical_ntk(lambda params, x: jnp.tanh(x @ params), params + size * jnp.cos(params), X))

    difference = (trace(1e-5) - trace(-1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(trace)(0.0), difference, rtol=1e-6)


@pytest.mark.parametrize("kernel", [empirical_ntk, empirical_ntk_blocks])
def test_bad_input_is_refused(kernel):
    apply, params, _ = ntk_parametrised()
    with pytest.raises(ValueError, match=r"x1 holds 1 values that are not finite, the first at \(2, 1\)"):
        kernel(apply, params, X.at[2, 1].set(jnp.inf))
    with pytest.raises(ValueError, match=r"x2 holds 3 values that are not finite"):
        kernel(apply, params, X, OTHER.at[:, 1].set(jnp.nan))
    with pytest.raises(
        ValueError, match=r"apply maps inputs of shape \(5, 4\) to \(5,\): let it return \(n, outputs\)"
    ):
        kernel(lambda params, x: apply(params, x)[:, 0], params, X)
    with pytest.raises(ValueError, match=r"memory=100: the derivatives of one input take \d+ bytes; give that or more"):
        kernel(apply, params, X, memory=100)
