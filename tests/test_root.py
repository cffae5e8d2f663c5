"""Roots in brackets that Newton's method alone would leave, and their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theorysim.root import log_root, root

# Each with its only root in the bracket; Newton's method alone leaves it, cycles or creeps.
HARD = {
    "a line": (lambda x: 3 * x - 1, 0.0, 5.0, 1 / 3),
    "flat at both ends": (lambda x: jnp.tanh(20 * (x - 0.7)), -60.0, 3.0, 0.7),
    "an exponential": (lambda x: jnp.exp(-x) - 1e-12, -10.0, 700.0, 12 * np.log(10)),
    "an infinite slope": (lambda x: jnp.sign(x - 0.3) * jnp.sqrt(jnp.abs(x - 0.3)), -1.0, 1.0, 0.3),
    "a slope that vanishes": (lambda x: x**3 - 2 * x + 2, -3.0, 3.0, -1.7692923542386314),  # 0 to 1 and back, for ever
    "a triple root": (lambda x: (x - 0.2) ** 3, -1.0, 2.0, 0.2),
    "its lower end": (lambda x: x - 1, 1.0, 2.0, 1.0),
    "its upper end": (lambda x: 1 - x**2, 0.0, 1.0, 1.0),
    "infinite at an end": (jnp.log, 0.0, 4.0, 1.0),
}


@pytest.mark.parametrize("name", HARD)
def test_hard_roots_are_found(name):
    excess, low, high, exact = HARD[name]
    found = root(excess, jnp.asarray(low), jnp.asarray(high))
    np.testing.assert_allclose(found, exact, rtol=1e-12, atol=1e-10 if name == "a triple root" else 1e-14)


def test_how_many_evaluations_it_takes():
    """Of smooth functions, in brackets of 130 orders of magnitude: about ten, and no lane waits for more than 20."""
    target, power = jnp.meshgrid(jnp.geomspace(1e-6, 1e6, 40), jnp.array([0.1, 0.3, 1.0]))
    evaluated = []

    def excess(log_x):
        jax.debug.callback(lambda: evaluated.append(1))
        return jnp.exp(-power * log_x) - target

    found = root(excess, jnp.full_like(target, -150.0), jnp.full_like(target, 150.0))
    jax.effects_barrier()
    np.testing.assert_allclose(found, -jnp.log(target) / power, rtol=1e-12, atol=1e-12)
    assert 8 <= len(evaluated) <= 2 + 20, len(evaluated)


def test_where_the_signs_agree_there_is_none():
    found = root(lambda x: x - jnp.array([-1.0, 0.5, 3.0]), jnp.zeros(3), jnp.ones(3))
    np.testing.assert_array_equal(found, [np.nan, 0.5, np.nan])
    assert jnp.isnan(root(lambda x: x * jnp.nan, jnp.asarray(0.0), jnp.asarray(1.0)))


def test_derivatives_of_three_orders():
    """x^3 = a, with a from a function that is differentiated, too: a closure, in forward and in reverse."""

    def cubic(log_a):
        return log_root(lambda log_x: 3 * log_x - log_a, 1e-9, 1e9)

    derivative = cubic
    for order, transform in enumerate((jax.jacrev, jax.jacfwd, jax.jacrev), start=1):
        derivative = transform(derivative)
        np.testing.assert_allclose(jax.jit(derivative)(1.2), np.exp(0.4) / 3**order, rtol=1e-12)
    many = jax.vmap(jax.grad(cubic))(jnp.linspace(-2, 2, 5))
    np.testing.assert_allclose(many, np.exp(np.linspace(-2, 2, 5) / 3) / 3, rtol=1e-12)


def test_a_root_of_roots():
    """sqrt(sqrt(x)) = y, where each square root is a search: x = y^4, and its slope."""

    def fourth_power(y):
        def excess(log_x):
            inner = log_root(lambda log_z: 2 * log_z - log_x, 1e-9, 1e9)
            return 0.5 * jnp.log(inner) - jnp.log(y)

        return log_root(excess, 1e-6, 1e6)

    value, slope = jax.jit(jax.value_and_grad(fourth_power))(1.7)
    np.testing.assert_allclose([value, slope], [1.7**4, 4 * 1.7**3], rtol=1e-11)


def test_single_precision():
    found = root(lambda x: x**2 - jnp.float32(2), jnp.float32(0), jnp.float32(4))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, np.sqrt(2), rtol=2e-7)
