"""Kernels and phases beside neural-tangents and a loop of scalar solves, in one run."""

import time

import jax
import numpy as np
from scipy import optimize

from theorysim import Grid, sweep
from theorysim.infinite import erf, fully_connected, phase
from theorysim.infinite.neural_tangents import stax

jax.config.update("jax_enable_x64", True)


def median_seconds(run, rounds=5):
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def test_erf_kernels_of_1000_inputs(benchmark, capsys):
    x = jax.random.normal(jax.random.key(0), (1000, 64))
    layers = [stax.Dense(1, 1.3, 0.3), stax.Erf()] * 3
    peer = jax.jit(lambda x: stax.serial(*layers, stax.Dense(1, 1.3, 0.3))[2](x, None, ("nngp", "ntk")))
    ours = jax.jit(lambda x: fully_connected(erf, x, x, depth=3, weight_var=1.69, bias_var=0.09))
    np.testing.assert_allclose(ours(x).ntk, peer(x).ntk, rtol=1e-9)
    mine, theirs = median_seconds(lambda: ours(x)), median_seconds(lambda: peer(x))
    with capsys.disabled():
        print(f"\nNNGP and NTK, n = 1000: {mine:.3f} s, neural-tangents {theirs:.3f} s, ratio {mine / theirs:.2f}")
    benchmark.pedantic(lambda: jax.block_until_ready(ours(x)), rounds=3)


def test_fixed_points_on_a_grid(benchmark, capsys):
    weight_var, bias_var = np.linspace(0.5, 4, 100), np.linspace(0.01, 1, 100)

    def fn(weight_var, bias_var):
        return {"q": phase.fixed_point(erf, weight_var, bias_var)}

    def ours():
        return sweep(fn, Grid(weight_var=weight_var, bias_var=bias_var))["q"].values

    def scipy_solve(w, b):
        def residual(q):
            return w * 2 / np.pi * np.arcsin(2 * q / (1 + 2 * q)) + b - q

        return optimize.brentq(residual, 1e-9, 10)

    sample = [(i, j) for i in range(0, 100, 10) for j in range(0, 100, 10)]
    ours()
    mine = median_seconds(ours) / 1e4
    start = time.perf_counter()
    solved = [scipy_solve(weight_var[i], bias_var[j]) for i, j in sample]
    theirs = (time.perf_counter() - start) / len(sample)
    np.testing.assert_allclose([ours()[i, j] for i, j in sample], solved, rtol=1e-9)
    with capsys.disabled():
        print(f"\nfixed point: {mine * 1e6:.1f} us, scipy on erf's closed form {theirs * 1e6:.1f} us a point")
    benchmark.pedantic(ours, rounds=3)
