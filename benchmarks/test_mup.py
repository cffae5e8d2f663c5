"""The causal solvers of the feature-learning limit beside the published algorithm, on the same problems.

The published algorithm (Bordelon & Pehlevan, arXiv:2205.09653) starts from the lazy kernels and repeats: errors, from
the tangent kernel by Euler's method; Gaussian sources; fields by fixed-point iteration; kernels and responses by
averages, with damping. Below it is compact numpy (deep linear: averages in closed form). Euler's method is of first
order in the learning rate, so that its losses are compared to a few per cent of the first one only.
`make bench` prints seconds and ratios.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theorysim.infinite import mup

jax.config.update("jax_enable_x64", True)
X = np.array([[1.0, 0.3, -0.5], [0.2, -0.9, 0.8]])
Y = np.array([1.0, -0.7])
GAMMA0, RATE, DAMPING = 1.0, 0.3, 0.7


class Published:
    """What the alternating iteration shares between its two cases. Pairs are (time, input), time first."""

    def __init__(self, depth, steps):
        self.depth, self.times, self.count = depth, steps + 1, len(Y)
        self.pairs = self.times * self.count
        self.data = np.tile(X @ X.T / X.shape[1], (self.times, self.times))
        time = np.repeat(np.arange(self.times), self.count)
        self.earlier = time[:, None] > time[None, :]
        self.rate = RATE * GAMMA0 / self.count
        ones = np.ones((self.pairs, self.pairs))
        self.features, self.gradients = [self.data.copy() for _ in range(depth)], [ones] * depth
        self.a = [np.zeros((self.pairs, self.pairs)) for _ in range(depth + 1)]  # a[l] drives layer l from below
        self.b = [np.zeros((self.pairs, self.pairs)) for _ in range(depth + 1)]  # b[l + 1] drives it from above
        self.outputs = np.zeros((self.times, self.count))

    def gains(self, layer):
        """The brackets that multiply g in h and phi(h) in z."""
        pull = self.rate * (Y - self.outputs).reshape(1, -1) * self.earlier
        below = self.data if layer == 0 else self.features[layer - 1]
        above = np.ones_like(below) if layer == self.depth - 1 else self.gradients[layer + 1]
        return self.a[layer] + pull * below, self.b[layer + 1] + pull * above, below, above

    def iterate(self, iterations):
        for _ in range(iterations):
            self.outputs = self.euler()
            new = [self.layer(i) for i in range(self.depth)]
            for i, (features, gradients, by_r, by_u) in enumerate(new):
                self.features[i] = self.damped(self.features[i], features)
                self.gradients[i] = self.damped(self.gradients[i], gradients)
                if i < self.depth - 1:
                    self.a[i + 1] = self.damped(self.a[i + 1], by_r)
                if i > 0:
                    self.b[i] = self.damped(self.b[i], by_u)
        self.outputs = self.euler()
        return np.square(Y - self.outputs).mean(1) / 2

    def euler(self):
        forward, backward = [self.data, *self.features], [*self.gradients, np.ones_like(self.data)]
        tangent = sum(phi * g for phi, g in zip(forward, backward, strict=True))
        f, outputs = np.zeros(self.count), []
        for t in range(self.times):
            outputs.append(f)
            now = slice(t * self.count, (t + 1) * self.count)
            f = f + RATE / self.count * tangent[now, now] @ (Y - f)
        return np.array(outputs)

    def damped(self, old, new):
        return DAMPING * new + (1 - DAMPING) * old


class PublishedLinear(Published):
    def layer(self, i):
        c, d, below, above = self.gains(i)
        one = np.eye(self.pairs)
        resolvent = np.linalg.inv(one - c @ d)
        h_u, h_r = resolvent, resolvent @ c
        z_u, z_r = d @ h_u, one + d @ h_r
        return h_u @ below @ h_u.T + h_r @ above @ h_r.T, z_u @ below @ z_u.T + z_r @ above @ z_r.T, h_r, z_u


class PublishedTanh(Published):
    def __init__(self, depth, steps, samples):
        super().__init__(depth, steps)
        self.samples, self.rng = samples, np.random.default_rng(0)

    def layer(self, i):
        c, d, below, above = self.gains(i)
        half = self.rng.standard_normal((2, self.pairs, self.samples // 2))
        u, r = (self.root(k) @ noise for k, noise in zip((below, above), half, strict=True))
        u, r = np.concatenate([u, u], 1), np.concatenate([r, -r], 1)
        h, z = u, r
        for _ in range(self.times):  # triangular in time: as many sweeps as times reach the fixed point
            phi, slope = np.tanh(h), 1 / np.cosh(h) ** 2
            h, z = u + c @ (slope * z), r + d @ phi
        phi, slope = np.tanh(h), 1 / np.cosh(h) ** 2
        g, bend = slope * z, -2 * phi * slope * z
        by_r, by_u = np.zeros_like(c), np.zeros_like(c)
        one = np.eye(self.pairs)
        for s in range(self.samples):
            # dh = [u] + C dg, dz = [r] + D phi' dh, dg = phi'' z dh + phi' dz: one linear system a neuron.
            through = c @ (np.diag(bend[:, s]) + slope[:, s, None] * d * slope[None, :, s])
            resolvent = np.linalg.inv(one - through)
            by_r += slope[:, s, None] * (resolvent @ (c * slope[None, :, s]))
            by_u += (np.diag(bend[:, s]) + slope[:, s, None] * d * slope[None, :, s]) @ resolvent
        return phi @ phi.T / self.samples, g @ g.T / self.samples, by_r / self.samples, by_u / self.samples

    @staticmethod
    def root(kernel):
        values, vectors = np.linalg.eigh(kernel)
        return vectors * np.sqrt(np.maximum(values, 0))


def seconds(run, rounds):
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        result = run()
        times.append(time.perf_counter() - start)
    return float(np.median(times)), result


def report(capsys, benchmark, what, ours, published, most):
    benchmark.extra_info.update(ours=ours, published=published, ratio=published / ours)
    with capsys.disabled():
        print(
            f"\n{what}: {ours:.4f} s (at most {most}), "
            f"published algorithm {published:.2f} s, ratio {published / ours:.0f}"
        )


def test_deep_linear(benchmark, capsys):
    depth, steps = 3, 100

    def ours():
        limit = mup.deep_linear(X, Y, depth=depth, gamma0=GAMMA0, learning_rate=RATE, steps=steps).value
        return jax.block_until_ready(limit).loss

    ours()
    mine, exact = seconds(ours, 9)
    theirs, loss = seconds(lambda: PublishedLinear(depth, steps).iterate(25), 1)
    np.testing.assert_allclose(loss, exact, atol=0.05 * exact[0])
    report(capsys, benchmark, "deep linear, 3 layers, 100 steps, 2 inputs", mine, theirs, 0.1)
    benchmark.pedantic(ours, rounds=3)


@pytest.mark.parametrize("samples", [4096])
def test_two_layers_of_tanh(benchmark, capsys, samples):
    depth, steps = 2, 16

    def ours():
        estimate = mup.dmft(
            jnp.tanh, X, Y, depth=depth, gamma0=GAMMA0, learning_rate=RATE, steps=steps,
            samples=samples // 4, batches=4, key=jax.random.key(0),
        )  # fmt: skip
        return jax.block_until_ready(estimate)

    ours()
    mine, estimate = seconds(ours, 9)
    theirs, loss = seconds(lambda: PublishedTanh(depth, steps, samples).iterate(10), 1)
    np.testing.assert_allclose(loss, estimate.value.loss, atol=0.05 * loss[0])
    report(capsys, benchmark, f"tanh, 2 layers, 16 steps, 2 inputs, {samples} samples", mine, theirs, 0.5)
    benchmark.pedantic(ours, rounds=3)
