"""The frontier beside published numbers, mpmath and brute force."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import theorysim.scaling as sc
from theorysim.scaling.approaches import envelope, isoflop, vertex, vertex_shift

EPOCH = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
ROUNDED = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}
UNROUNDED = {
    **{"E": np.exp(0.5267228), "A": np.exp(6.0073404), "B": np.exp(6.0179186)},
    **{"alpha": 0.33917084, "beta": 0.2849083},
}
CHINCHILLA = sc.LAWS["chinchilla"]


@pytest.mark.parametrize(("parameters", "ratio"), [(ROUNDED, 92.6), (UNROUNDED, 58.9), (EPOCH, 18.4)])
def test_tokens_a_parameter_at_chinchillas_compute(parameters, ratio):
    """Rounding the published parameters moves the ratio from 59 to 93; the replication's is 18."""
    best = sc.chinchilla_frontier(parameters, 5.76e23)
    np.testing.assert_allclose(best.d / best.n, ratio, rtol=1e-3 if ratio > 50 else 3e-3)


def test_the_frontier_is_the_minimum_along_the_budget():
    def along(log_n):
        n = mpmath.exp(log_n)
        d = mpmath.mpf(1e21) / 6 / n
        p = {name: mpmath.mpf(value) for name, value in EPOCH.items()}
        return p["E"] + p["A"] / n ** p["alpha"] + p["B"] / d ** p["beta"]

    best = sc.chinchilla_frontier(EPOCH, 1e21)
    with mpmath.workdps(40):
        root = mpmath.findroot(lambda log_n: mpmath.diff(along, log_n), 21)
        np.testing.assert_allclose([best.n, best.loss], [float(mpmath.exp(root)), float(along(root))], rtol=1e-12)
    np.testing.assert_allclose(6 * best.n * best.d, 1e21, rtol=1e-12)
    np.testing.assert_allclose(sc.chinchilla_compute(EPOCH, best.loss), 1e21, rtol=1e-10)
    assert jnp.isnan(sc.chinchilla_compute(EPOCH, 1.8))


def test_overhead_of_another_size():
    """Direct inversion of the law gave 70.42, 2.5186, .57380, .36156 times the tokens."""
    ratio = jnp.array([0.2, 0.5, 2.0, 5.0])
    over = sc.overhead(EPOCH, ratio)
    np.testing.assert_allclose(over.d, [70.42, 2.5186, 0.57380, 0.36156], rtol=2e-3)
    best = sc.chinchilla_frontier(EPOCH, 1e21)
    loss = CHINCHILLA(n=ratio * best.n, d=over.d * best.d, **EPOCH)
    np.testing.assert_allclose(loss, np.full(4, best.loss), rtol=1e-12)
    limit = (1 + EPOCH["alpha"] / EPOCH["beta"]) ** (-1 / EPOCH["alpha"])
    np.testing.assert_allclose(limit, 0.1464, rtol=1e-3)
    assert jnp.isinf(sc.overhead(EPOCH, 0.99 * limit).compute)


def test_any_law_and_any_count_of_flops():
    closed = sc.chinchilla_frontier(EPOCH, 1e21)
    found = sc.allocate(CHINCHILLA, EPOCH, 1e21)
    np.testing.assert_allclose(found, closed, rtol=1e-12)
    kaplan = {"Nc": 6.4e13, "Dc": 1.8e13, "alpha_n": 0.076, "alpha_d": 0.103}
    count = sc.Transformer(vocabulary=50432, context=2048, head=True, attention=True)
    best = sc.allocate(sc.LAWS["kaplan_nd"], kaplan, 1e20, flops_per_token=count)
    n = np.exp(np.linspace(-0.02, 0.02, 5)) * float(best.n)
    loss = sc.LAWS["kaplan_nd"](n=n, d=1e20 / np.asarray(count(n)), **kaplan)
    assert np.argmin(loss) == 2
    np.testing.assert_allclose(
        sc.compute_for(sc.LAWS["kaplan_nd"], kaplan, best.loss, flops_per_token=count), 1e20, rtol=1e-8
    )


def test_flops_of_a_transformer():
    """96 layers of width 12288 (GPT-3): the parts of one token's cost, by hand."""
    width, depth = 12288, 96
    n = 12 * depth * width**2
    shape = {"vocabulary": 50257, "context": 2048, "aspect": width / depth}
    bare = sc.Transformer(**shape, head=False)(n)
    np.testing.assert_allclose(bare, 6 * n)
    np.testing.assert_allclose(sc.Transformer(**shape)(n) - bare, 6 * 50257 * width, rtol=1e-6)
    both = sc.Transformer(**shape, embedding=True)(n) - bare
    np.testing.assert_allclose(both, 12 * 50257 * width, rtol=1e-6)
    attention = sc.Transformer(**shape, head=False, attention=True)(n) - bare
    np.testing.assert_allclose(attention, 6 * depth * 2048 * width, rtol=1e-6)


def test_leaving_out_the_head_tilts_the_exponent():
    """Where the law holds for all matrices of the network, counting those of its blocks alone, as Kaplan et al. did."""
    shape = {"vocabulary": 50432, "context": 2048}
    body = np.geomspace(1e4, 1e10, 2000)
    whole = np.asarray(sc.Transformer(**shape)(body)) / 6
    best = sc.chinchilla_frontier(EPOCH, np.geomspace(1e17, 1e18, 5))
    counted = np.exp(np.interp(np.log(best.n), np.log(whole), np.log(body)))
    slope, _ = np.polyfit(np.log(6 * counted * best.d), np.log(counted), 1)
    assert slope > sc.frontier_exponent(EPOCH) + 0.1


def test_the_frontier_is_differentiable_and_vmaps():
    slope = jax.grad(lambda log_c: jnp.log(sc.allocate(CHINCHILLA, EPOCH, jnp.exp(log_c)).n))(jnp.log(1e21))
    np.testing.assert_allclose(slope, sc.frontier_exponent(EPOCH), rtol=1e-8)
    by_alpha = jax.grad(lambda alpha: sc.allocate(CHINCHILLA, {**EPOCH, "alpha": alpha}, 1e21).loss)(0.3478)
    exact = jax.grad(lambda alpha: sc.chinchilla_frontier({**EPOCH, "alpha": alpha}, 1e21).loss)(0.3478)
    np.testing.assert_allclose(by_alpha, exact, rtol=1e-8)
    many = jax.vmap(lambda c: sc.allocate(CHINCHILLA, EPOCH, c))(jnp.geomspace(1e18, 1e24, 7))
    np.testing.assert_allclose(many.n, sc.chinchilla_frontier(EPOCH, jnp.geomspace(1e18, 1e24, 7)).n, rtol=1e-10)


@pytest.mark.parametrize(
    ("parameters", "width", "shift"),
    [(ROUNDED, 2, 0.003275), (ROUNDED, 8, 0.02947), (EPOCH, 2, -0.000982), (EPOCH, 8, -0.00884)],
)
def test_parabolas_are_biased_by_a_constant(parameters, width, shift):
    """Approach 2 without noise: the exponent is exact and the size is off by one factor, as the closed form says."""
    offsets = jnp.linspace(-np.log(width), np.log(width), 15)
    shifts = []
    for compute in (1e18, 1e21):
        best = sc.chinchilla_frontier(parameters, compute)
        n = best.n * jnp.exp(offsets)
        found = vertex(jnp.log(n), CHINCHILLA(n=n, d=compute / 6 / n, **parameters))
        shifts.append(float(found - jnp.log(best.n)))
    np.testing.assert_allclose(shifts, shift, rtol=2e-3)
    np.testing.assert_allclose(shifts[0], shifts[1], rtol=1e-7)
    leading = float(vertex_shift(parameters["alpha"], parameters["beta"], offsets))
    np.testing.assert_allclose(leading, shifts[0], rtol=0.06 * np.log(width) ** 2)


def isoflop_runs(offsets, budgets):
    best = [sc.chinchilla_frontier(EPOCH, c) for c in budgets]
    n = np.concatenate([float(b.n) * np.exp(offsets) for b in best])
    c = np.repeat(budgets, len(offsets))
    return c, n, np.asarray(CHINCHILLA(n=n, d=c / 6 / n, **EPOCH))


def test_isoflop_of_noise_free_runs():
    budgets = np.geomspace(1e18, 1e22, 5)
    found = isoflop(*isoflop_runs(np.linspace(-1, 1, 9), budgets))
    np.testing.assert_allclose(found.exponent, sc.frontier_exponent(EPOCH), atol=1e-8)
    np.testing.assert_allclose(found.compute, budgets, rtol=1e-12)


def test_budgets_without_a_minimum_are_left_out():
    budgets = np.geomspace(1e18, 1e22, 5)
    c, n, loss = isoflop_runs(np.linspace(-1, 1, 9), budgets)
    far = isoflop_runs(np.linspace(1.5, 3, 9), np.array([1e23]))
    found = isoflop(*(np.concatenate(pair) for pair in zip((c, n, loss), far, strict=True)))
    np.testing.assert_allclose(found.compute, budgets, rtol=1e-12)
    with pytest.raises(sc.RunsError, match=r"1 budgets with a minimum inside of their sizes: give at least two"):
        isoflop(c[:9], n[:9], loss[:9])


def test_envelopes_of_training_curves():
    """Curves that follow the law as tokens go by: their envelope is the frontier."""
    sizes = np.geomspace(1e7, 1e10, 40)
    tokens = np.geomspace(1e8, 1e12, 200)
    n, d = (grid.ravel() for grid in np.meshgrid(sizes, tokens, indexing="ij"))
    loss = np.asarray(CHINCHILLA(n=n, d=d, **EPOCH))
    curve = np.repeat(np.arange(40), 200)
    found = envelope(curve, 6 * n * d, n, loss)
    # Sizes are a factor 1.19 apart: the best is known to half of it, over four decades of compute.
    np.testing.assert_allclose(found.exponent, sc.frontier_exponent(EPOCH), atol=np.log(1.2) / np.log(1e4))


def test_crossover_of_two_methods():
    values = {"E": 1.5, "A1": 900.0, "A2": 6000.0, "alpha1": 0.15, "alpha2": 0.2}
    at = sc.crossover(values)
    losses = sc.LAWS["crossing"](c=jnp.array([at, at]), method=jnp.array([1.0, 2.0]), **values)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-13)
    assert jnp.isinf(sc.crossover({**values, "alpha2": 0.15}))


def test_bad_calls_are_refused():
    with pytest.raises(ValueError, match=r"compute=-1.0: give a value > 0"):
        sc.chinchilla_frontier(EPOCH, -1.0)
    with pytest.raises(ValueError, match=r"law=m1: it has the inputs \['x'\]; a frontier needs a law of n and d"):
        sc.allocate(sc.LAWS["m1"], {"b": 1.0, "c": 0.1}, 1e20)
    with pytest.raises(ValueError, match=r"context=0: give a value > 0"):
        sc.Transformer(vocabulary=100, context=0)
