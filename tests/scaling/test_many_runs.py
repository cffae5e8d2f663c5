"""Many runs: what a block of searches takes does not grow with them."""

import jax
import jax.numpy as jnp
import numpy as np

import theorysim.scaling as sc
from theorysim.scaling.minimise import begin
from theorysim.scaling.problem import CELLS, _advance


def test_a_hundred_thousand_runs_are_fitted_in_flat_memory():
    """A full decomposition of their derivatives would take 75 GiB, and 64 lanes 2 GiB."""
    x = np.geomspace(1e6, 1e10, 100_000)
    loss = 40 * x**-0.2 * np.exp(0.01 * np.random.default_rng(0).standard_normal(len(x)))
    fit = sc.fit("m1", {"x": x, "loss": loss}, objective=sc.least_squares(), starts=4)
    assert fit.rank == 2
    line = np.polyfit(np.log(x), np.log(loss), 1)
    np.testing.assert_allclose(fit.parameters["c"], -line[0], rtol=1e-8)
    problem = fit.problem.padded(100_032)
    lanes = CELLS // 100_032
    searches = jax.vmap(begin)(jnp.broadcast_to(fit.point, (lanes, 2)))
    leaves, tree = jax.tree.flatten(problem)
    block = jax.jit(lambda leaves, *rest: _advance(tree.unflatten(leaves), *rest))
    needed = block.lower(leaves, searches, np.ones((lanes, 100_032))).compile().memory_analysis()
    assert needed.temp_size_in_bytes < 2**27
