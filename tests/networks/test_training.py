"""The training loop beside recursions by hand."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from theorysim.networks import schedule, train

RATES = jnp.asarray(np.random.default_rng(0).uniform(0, 0.3, 12))
STEPS = np.array([0, 1, 5, 12])


def quadratic(params, step):
    """Another minimum at each step: its batch."""
    return 0.5 * jnp.sum(jnp.array([1.0, 3.0]) * (params - 0.1 * step) ** 2)


def test_sgd_is_its_recursion():
    found = train(quadratic, jnp.ones(2), optax.sgd(schedule(RATES)), STEPS, lambda params: params)
    params, expected = np.ones(2), [np.ones(2)]
    for step, rate in enumerate(np.asarray(RATES)):
        params = params - rate * np.array([1.0, 3.0]) * (params - 0.1 * step)
        if step + 1 in STEPS:
            expected.append(params)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_adamw_takes_the_same_schedule():
    optimizer = optax.adamw(schedule(RATES), weight_decay=0.1)
    found = train(quadratic, jnp.ones(2), optimizer, STEPS, lambda params: params)
    params = jnp.ones(2)
    memory = optimizer.init(params)
    for step in range(12):
        updates, memory = optimizer.update(jax.grad(quadratic)(params, step), memory, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(found[-1], params, rtol=1e-10)


def test_schedules_and_seeds_in_one_program():
    @chex.assert_max_traces(n=1)
    def curve(start, rates):
        return train(quadratic, start, optax.sgd(schedule(rates)), STEPS, lambda params: quadratic(params, 0))

    starts, rates = jnp.stack([jnp.ones(2), -jnp.ones(2)]), jnp.stack([RATES, RATES[::-1]])
    together = jax.jit(jax.vmap(jax.vmap(curve, (None, 0)), (0, None)))(starts, rates)
    alone = train(quadratic, starts[1], optax.sgd(schedule(rates[1])), STEPS, lambda params: quadratic(params, 0))
    np.testing.assert_allclose(together[1, 1], alone, rtol=1e-12)


def test_training_beyond_the_schedule_is_nan():
    found = train(quadratic, jnp.ones(2), optax.sgd(schedule(RATES)), np.array([12, 13]), jnp.sum)
    np.testing.assert_array_equal(jnp.isnan(found), [False, True])


def test_bad_steps_and_rates_are_refused():
    with pytest.raises(ValueError, match=r"steps=\[5 3\]: give increasing numbers, from 0 on"):
        train(quadratic, jnp.ones(2), optax.sgd(0.1), np.array([5, 3]), jnp.sum)
    with pytest.raises(ValueError, match=r"(?s)rates=.*: give a value >= 0"):
        schedule(-RATES)
