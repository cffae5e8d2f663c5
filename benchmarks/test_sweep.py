"""The sweep beside a hand-written `jit(vmap)` with the same keys: warm, from host to host, in one run.

The ratio is that of the medians of interleaved rounds; `make bench` prints it.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theorysim import Grid, sweep

jax.config.update("jax_enable_x64", True)
KEY = jax.random.key(0)
A, B = np.linspace(0.1, 2, 1000), np.linspace(0, 1, 1000)


def scan_of_100_steps(a, b, key):
    return {"y": jax.lax.scan(lambda c, _: (jnp.tanh(a * c + b), None), jax.random.normal(key), None, length=100)[0]}


def trivial(a, b, key):
    return {"y": a * b + jax.random.normal(key)}


def hand_written(fn):
    @jax.jit
    def run(a, b, key):
        def point(i, j):
            return fn(a[i], b[j], jax.random.fold_in(jax.random.fold_in(key, i), j))

        rows, columns = jnp.arange(a.size), jnp.arange(b.size)
        return jax.vmap(lambda i: jax.vmap(lambda j: point(i, j))(columns))(rows)

    return lambda: np.asarray(run(A, B, KEY)["y"])


@pytest.mark.parametrize(("fn", "most"), [(scan_of_100_steps, 1.1), (trivial, 2.0)])
def test_overhead_on_a_million_points(benchmark, capsys, fn, most):
    grid, peer = Grid(a=A, b=B), hand_written(fn)

    def ours():
        return sweep(fn, grid, key=KEY)["y"].values

    np.testing.assert_allclose(ours(), peer(), rtol=1e-12)
    seconds = {ours: [], peer: []}
    for _ in range(15):
        for run, times in seconds.items():
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
    mine, theirs = (float(np.median(times)) for times in seconds.values())
    benchmark.extra_info.update(sweep=mine, hand_written=theirs, ratio=mine / theirs)
    with capsys.disabled():
        print(
            f"\n{fn.__name__}: sweep {mine:.4f} s, jit(vmap) {theirs:.4f} s, ratio {mine / theirs:.2f} (at most {most})"
        )
    benchmark.pedantic(ours, rounds=3)
