"""Kernels of wide networks: neural-tangents, Monte Carlo over finite networks, symmetry and positivity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theorysim.infinite import erf, fully_connected, tanh
from theorysim.infinite.neural_tangents import stax
from theorysim.networks import MLP, empirical_ntk

X1 = jax.random.normal(jax.random.key(0), (5, 8))
X2 = jax.random.normal(jax.random.key(1), (3, 8))


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_erf_kernels_are_those_of_neural_tangents(depth):
    layer = [stax.Dense(1, np.sqrt(1.7), np.sqrt(0.2)), stax.Erf()]
    _, _, kernel = stax.serial(*layer * depth, layer[0])
    reference = kernel(X1, X2, ("nngp", "ntk"))
    ours = fully_connected(erf, X1, X2, depth=depth, weight_var=1.7, bias_var=0.2)
    np.testing.assert_allclose(ours.nngp, reference.nngp, rtol=1e-13)
    np.testing.assert_allclose(ours.ntk, reference.ntk, rtol=1e-13)


@pytest.mark.parametrize("activation", [erf, tanh])
def test_finite_networks_scatter_about_the_limit(activation):
    """Mean kernels of 400 networks of width 300, within four standard errors and 2 / width."""
    network = MLP(width=300, depth=2, activation=activation, weight_var=1.5, bias_var=0.3)

    def one(key):
        params = network.init(key, X1)
        f = network.apply(params, X1)[:, 0]
        return empirical_ntk(network.apply, params, X1, X1), jnp.outer(f, f)

    limit = fully_connected(activation, X1, X1, depth=2, weight_var=1.5, bias_var=0.3)
    samples = jax.lax.map(one, jax.random.split(jax.random.key(2), 400), batch_size=50)
    for kernels, exact in zip(samples, (limit.ntk, limit.nngp), strict=True):
        error = kernels.std(0, ddof=1) / 20
        scale = jnp.sqrt(jnp.outer(jnp.diag(exact), jnp.diag(exact)))
        assert (jnp.abs(kernels.mean(0) - exact) < 4 * error + 2 / 300 * scale).all()


def test_a_kernel_is_symmetric_positive_and_traced_in_its_variances():
    @jax.jit
    def kernels(weight_var, bias_var):
        return fully_connected(tanh, X1, X1, depth=3, weight_var=weight_var, bias_var=bias_var)

    for kernel in kernels(2.0, 0.1):
        np.testing.assert_allclose(kernel, kernel.T, rtol=1e-12)
        assert (jnp.linalg.eigvalsh(kernel) > 0).all()
    gradient = jax.jacobian(lambda w: kernels(w, 0.1).ntk)(2.0)
    assert jnp.isfinite(gradient).all()


def test_without_neural_tangents_the_error_says_what_to_do(monkeypatch):
    import sys

    from theorysim.infinite import neural_tangents

    for name in [name for name in sys.modules if name.split(".")[0] == "neural_tangents"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install --no-deps neural-tangents frozendict"):
        _ = neural_tangents.stax
    with pytest.raises(AttributeError, match="it has stax and predict"):
        _ = neural_tangents.empirical
