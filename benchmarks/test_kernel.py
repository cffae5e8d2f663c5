"""Kernels and phases beside neural-tangents and a loop of scalar solves, in one run; ratios are of alternating rounds.

`make bench` prints seconds and ratios (ours by theirs).
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from theorysim import Grid, sweep
from theorysim.infinite import fully_connected, phase, relu, tanh
from theorysim.infinite.neural_tangents import stax

jax.config.update("jax_enable_x64", True)
SETTINGS = [(w, b) for w in np.linspace(1.0, 2.5, 8) for b in np.linspace(0.0, 0.5, 8)]


def inputs(dtype):
    x = jax.random.normal(jax.random.key(0), (1000, 64), dtype)
    return x / jnp.linalg.norm(x, axis=1, keepdims=True) * 8


def seconds(run):
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def beside(mine, theirs, rounds=3):
    """Median seconds of each, and the median ratio of alternating rounds; both are compiled before."""
    mine(), theirs()
    times = np.array([(seconds(mine), seconds(theirs)) for _ in range(rounds)])
    return *np.median(times, 0), np.median(times[:, 0] / times[:, 1])


def peer(x, weight_var, bias_var):
    dense = stax.Dense(1, weight_var**0.5, bias_var**0.5)
    return stax.serial(*[dense, stax.Relu()] * 3, dense)[2](x, None, ("nngp", "ntk"))


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_kernels_of_64_settings(benchmark, capsys, dtype):
    """1000 inputs, three hidden layers of relu; a kernel is reduced to its sum, or 64 of them would fill the memory."""
    x = inputs(dtype)
    grid = jnp.asarray(SETTINGS, dtype)

    def sums(kernels):
        return kernels.nngp.sum(), kernels.ntk.sum()

    def ours(setting):
        return sums(fully_connected(relu, x, depth=3, weight_var=setting[0], bias_var=setting[1]))

    all_of_ours = jax.jit(lambda: jax.lax.map(ours, grid))
    all_of_theirs = jax.jit(lambda: jax.lax.map(lambda setting: sums(peer(x, *setting)), grid))

    def as_called(count=3):
        """Variances are Python numbers, and each setting is a new kernel_fn: it is traced and compiled again."""
        return [jax.jit(lambda x, s=s: sums(peer(x, *s)))(x) for s in SETTINGS[:count]]

    mine, theirs, ratio = beside(all_of_ours, all_of_theirs)
    as_called()
    retraced = seconds(as_called) / 3 * 64
    np.testing.assert_allclose(all_of_ours(), all_of_theirs(), rtol=1e-6 if dtype == jnp.float64 else 1e-3)
    with capsys.disabled():
        print(
            f"\n64 settings, n = 1000, {dtype.__name__}: {mine:.2f} s; neural-tangents with traced variances "
            f"{theirs:.2f} s, ratio {ratio:.2f}; as users call it (from 3 settings) {retraced:.1f} s, "
            f"ratio {mine / retraced:.3f}"
        )
    benchmark.pedantic(lambda: jax.block_until_ready(all_of_ours()), rounds=1)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_an_activation_without_closed_form_costs_about_what_relu_does(benchmark, capsys, dtype):
    x = inputs(dtype)

    def kernels(activation):
        run = jax.jit(lambda x: fully_connected(activation, x, depth=3, weight_var=1.2, bias_var=0.1, normalised=True))
        return lambda: run(x)

    general, closed, ratio = beside(kernels(tanh), kernels(relu), rounds=15)
    with capsys.disabled():
        print(f"\ntanh, n = 1000, {dtype.__name__}: {general:.3f} s; relu {closed:.3f} s, ratio {ratio:.2f}")
    assert ratio < 2
    benchmark.pedantic(lambda: jax.block_until_ready(kernels(tanh)()), rounds=1)


def test_a_million_phases(benchmark, capsys):
    weight_var, bias_var = np.linspace(0.5, 4, 1000), np.linspace(0.01, 1, 1000)

    def fn(weight_var, bias_var):
        q = phase.fixed_point(tanh, weight_var=weight_var, bias_var=bias_var)
        c = phase.fixed_correlation(tanh, q, weight_var=weight_var)
        length = phase.correlation_length(tanh, q, c, weight_var=weight_var)
        return {"q": q, "slope": phase.chi(tanh, q, weight_var=weight_var), "c": c, "length": length}

    def ours():
        return sweep(fn, Grid(weight_var=weight_var, bias_var=bias_var))

    z, step = np.linspace(-8, 8, 121, retstep=True)
    weights = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * step

    def scalar(w, b):
        q = optimize.brentq(lambda q: w * weights @ np.tanh(np.sqrt(q) * z) ** 2 + b - q, 1e-9, 10)
        slope = w * weights @ np.cosh(np.sqrt(q) * z) ** -4.0

        def mean(fn, c):
            v = np.sqrt(q) * (c * z[:, None] + np.sqrt(1 - c**2) * z[None, :])
            return weights @ (fn(np.sqrt(q) * z)[:, None] * fn(v)) @ weights

        def gap(c):
            return (w * mean(np.tanh, c) + b) / q - c

        c = optimize.brentq(gap, 0, 1 - 1e-6) if slope > 1 + 1e-4 else 1.0
        return q, slope, c, -1 / np.log(w * mean(lambda x: np.cosh(x) ** -2.0, c))

    whole = ours()
    mine = seconds(lambda: ours()["c"].values)
    sample = [(i, j) for i in range(50, 1000, 200) for j in range(50, 1000, 200)]
    start = time.perf_counter()
    solved = np.array([scalar(weight_var[i], bias_var[j]) for i, j in sample])
    theirs = (time.perf_counter() - start) / len(sample)
    for column, name in enumerate(("q", "slope", "c")):
        np.testing.assert_allclose([float(whole[name][i, j]) for i, j in sample], solved[:, column], rtol=1e-6)
    with capsys.disabled():
        print(
            f"\n10^6 phases of tanh: {mine:.1f} s; scipy {theirs * 1e3:.1f} ms a point, {theirs * 1e6 / mine:.0f} times"
        )
    benchmark.pedantic(ours, rounds=1)
