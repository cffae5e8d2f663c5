"""Tangent kernels of finite networks beside the contraction of their Jacobians, in one run."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from theorysim.networks import empirical_ntk, empirical_ntk_blocks

MLP = linen.Sequential([linen.Dense(512), linen.relu, linen.Dense(512), linen.relu, linen.Dense(10)])
CNN = linen.Sequential(
    [linen.Conv(32, (3, 3)), linen.relu, linen.Conv(32, (3, 3)), linen.relu, lambda x: x.mean((1, 2)), linen.Dense(10)]
)


def contracted(network, mean):
    """Jacobians of all outputs in all parameters, leaf by leaf."""

    def kernel(params, x):
        jacobians = jax.vmap(lambda x: jax.jacrev(lambda params: network.apply(params, x[None])[0])(params))(x)
        flat = [leaf.reshape(len(x), 10, -1) for leaf in jax.tree.leaves(jacobians)]
        if mean:
            return sum(jnp.einsum("iop,jop->ij", leaf, leaf) for leaf in flat) / 10
        return sum(jnp.einsum("iop,jqp->ijoq", leaf, leaf) for leaf in flat)

    return jax.jit(kernel)


def seconds(run):
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


@pytest.mark.parametrize("ours", [empirical_ntk, empirical_ntk_blocks])
@pytest.mark.parametrize(("network", "shape"), [(MLP, (64, 784)), (CNN, (16, 16, 16, 3))], ids=["mlp", "cnn"])
def test_tangent_kernels(benchmark, capsys, ours, network, shape):
    x = jax.random.normal(jax.random.key(0), shape, jnp.float32)
    params = network.init(jax.random.key(1), x)
    plain = contracted(network, ours is empirical_ntk)

    def mine():
        return ours(network.apply, params, x)

    exact = plain(params, x)
    np.testing.assert_allclose(mine(), exact, rtol=0, atol=2e-5 * float(abs(exact).max()))
    rounds = np.array([(seconds(mine), seconds(lambda: plain(params, x))) for _ in range(3)])
    (fast, slow), ratio = np.median(rounds, 0), np.median(rounds[:, 0] / rounds[:, 1])
    with capsys.disabled():
        print(f"\n{ours.__name__}, {shape}: {fast:.3f} s, Jacobian contraction {slow:.3f} s, ratio {ratio:.4f}")
    benchmark.pedantic(lambda: jax.block_until_ready(mine()), rounds=3)
