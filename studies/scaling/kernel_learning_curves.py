"""How much data does a kernel need? A spectrum and a target's power in it say the whole learning curve of ridge
regression, its noise and its double descent, with kernels and with finitely many random features.
"""

# %% [markdown]
# # Learning curves of kernel regression
#
# A kernel $\sum_i \eta_i \phi_i(x) \phi_i(x')$ and a target $\sum_i a_i \phi_i$ are learned from $P$ noisy samples by
# $(K + \lambda)^{-1} y$. With $\kappa = \lambda + \kappa \sum_i \eta_i / (P \eta_i + \kappa)$ and
# $\gamma = \sum_i P \eta_i^2 / (\kappa + P \eta_i)^2$ the error is
#
# $$E = \frac{1}{1 - \gamma} \Big[\sum_i a_i^2 \frac{\kappa^2}{(\kappa + P \eta_i)^2} + \sigma^2 \gamma\Big].$$
#
# A kernel that is a mean over $N$ random features obeys two such equations, and errs most where $N = P$.

# %%
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import theorysim as ts

TITLE = "Learning curves of kernel regression"
SOURCES = ("arXiv:2002.02561", "arXiv:2006.13198", "arXiv:2311.14646")


class Preset(NamedTuple):
    """Modes of the kernel, samples and random features of the regressions, and how many of each."""

    modes: int
    samples: tuple[int, ...]
    features: tuple[int, ...]
    repeats: int


PRESETS = {
    "smoke": Preset(200, (10, 60, 100), (25, 200), repeats=32),
    "laptop": Preset(400, (10, 20, 50, 100, 200), (12, 25, 50, 80, 100, 125, 200, 400), repeats=48),
    "paper": Preset(10_000, (10, 20, 50, 100, 200, 500, 1000, 2000), (10, 20, 50, 80, 100, 125, 200, 500), repeats=512),
}
RIDGES = (1e-4, 1e-2, 1e-1)
NOISES = (0.0, 0.1)
FIXED = {"samples": 100, "noise_var": 0.1}  # of the random features
FEATURE_RIDGES = (1e-4, 1e-2)


solve = ts.scaling.kernel_regression.solve_used


def spectrum(modes):
    """Power laws that both sum to 1: a kernel of unit variance, a target of unit mean square."""
    rank = np.arange(1.0, modes + 1)
    return ts.scaling.kernel_regression.Spectrum(*(jnp.asarray(v / v.sum()) for v in (rank**-1.5, rank**-2.0)))


# %% [markdown]
# ## Regressions
#
# Errors are exact given the inputs: the modes are orthonormal, so the distance of the coefficients is the error. One
# program serves all sizes: rows beyond the first $P$ are zero.


# %%
def kernel_errors(key, spectrum, samples, most):
    """At each ridge and noise, from the same inputs."""
    of_inputs, of_noise = jax.random.split(key)
    phi, y, used = data(of_inputs, of_noise, spectrum, samples, most, jnp.array(NOISES))

    def error(ridge):
        found = phi.T @ solve((phi * spectrum.eigenvalues[None]) @ phi.T, y, used, ridge=ridge)
        return jnp.square(spectrum.eigenvalues[:, None] * found - jnp.sqrt(spectrum.power)[:, None]).sum(0)

    return jax.vmap(error)(jnp.array(RIDGES))


def feature_errors(key, spectrum, features, most):
    """At each ridge, from the same inputs and features."""
    of_inputs, of_noise, of_features = jax.random.split(key, 3)
    noise = jnp.array([FIXED["noise_var"]])
    phi, y, used = data(of_inputs, of_noise, spectrum, FIXED["samples"], FIXED["samples"], noise)
    mixing = jax.random.normal(of_features, (phi.shape[1], most)) * (jnp.arange(most) < features)[None]
    mixing = jnp.sqrt(spectrum.eigenvalues / features)[:, None] * mixing
    z = phi @ mixing

    def error(ridge):
        found = mixing @ (z.T @ solve(z @ z.T, y, used, ridge=ridge))
        return jnp.square(found[:, 0] - jnp.sqrt(spectrum.power)).sum()

    return jax.vmap(error)(jnp.array(FEATURE_RIDGES))


def data(of_inputs, of_noise, spectrum, samples, most, noise_var):
    used = jnp.arange(most) < samples
    phi = jax.random.normal(of_inputs, (most, len(spectrum.power))) * used[:, None]
    noise = jnp.sqrt(noise_var)[None] * jax.random.normal(of_noise, (most, 1))
    return phi, ((phi @ jnp.sqrt(spectrum.power))[:, None] + noise) * used[:, None], used


def simulate(preset):
    of = spectrum(preset.modes)
    theory = ts.scaling.kernel_regression

    def curve(samples, ridge, noise_var):
        return {"error": theory.learning_curve(of, samples, ridge=ridge, noise_var=noise_var).error}

    def feature_curve(features, ridge):
        return {"error": theory.random_features(of, features=features, ridge=ridge, **FIXED).error}

    def kernels(samples, key):
        return {"error": kernel_errors(key, of, samples, preset.samples[-1])}

    def random_features(features, key):
        return {"error": feature_errors(key, of, features, preset.features[-1])}

    def fine(values):
        return np.union1d(np.geomspace(values[0], values[-1], 60), values)

    def drawn(seed, axes):
        labels = {"dims": {"error": list(axes)}, "coords": axes}
        return {"key": jax.random.key(seed), "repeats": preset.repeats, **labels}

    axes, feature_axes = {"ridge": np.array(RIDGES), "noise_var": np.array(NOISES)}, {"ridge": np.array(FEATURE_RIDGES)}
    samples, features = np.array(preset.samples, float), np.array(preset.features, float)
    return ts.study.tree(
        theory=ts.sweep(curve, ts.Grid(samples=fine(samples), **axes)),
        simulation=ts.sweep(kernels, ts.Grid(samples=samples), **drawn(0, axes)),
        feature_theory=ts.sweep(feature_curve, ts.Grid(features=fine(features), **feature_axes)),
        features=ts.sweep(random_features, ts.Grid(features=features), **drawn(1, feature_axes)),
    )


# %% [markdown]
# ## What must agree


# %%
def claims(data):
    simulation, theory = data["simulation"]["error"], data["theory"]["error"]
    ratio = simulation / theory.sel(samples=simulation["samples"])
    for ridge, noise_var in itertools.product(RIDGES, NOISES):
        yield ts.study.limit_agrees(
            f"error, ridge {ridge:g}, noise {noise_var:g}",
            f"ridge {ridge:g}, noise variance {noise_var:g}: ratio of the error of regressions to theory, "
            "extrapolated in 1 / samples",
            1.0,
            ratio.sel(ridge=ridge, noise_var=noise_var),
            along="samples",
        )
    simulation, theory = data["features"]["error"], data["feature_theory"]["error"]
    ratio = simulation / theory.sel(features=simulation["features"])
    for ridge in FEATURE_RIDGES:
        yield ts.study.agrees(
            f"random features, ridge {ridge:g}",
            f"random features, ridge {ridge:g}: ratio of the error of regressions to theory, mean over numbers of "
            "features",
            1.0,
            ts.study.mean_estimate(ratio.sel(ridge=ridge).mean("features")),
            next_order=1 / FIXED["samples"],
            why="1 / samples",
        )


# %% [markdown]
# ## Theory as lines, regressions as points


# %%
def draw(data):
    figure, panels = plt.subplots(1, 3, figsize=ts.study.page(1, 3, 1.05))
    for panel, letter, noise_var in zip(panels, "ab", NOISES, strict=False):
        curves(panel, *(data[node]["error"].sel(noise_var=noise_var) for node in ("theory", "simulation")), RIDGES)
        panel.set(title=f"({letter}) kernel, noise variance {noise_var:g}", xlabel="samples $P$")
    curves(panels[2], data["feature_theory"]["error"], data["features"]["error"], FEATURE_RIDGES)
    panels[2].axvline(FIXED["samples"], color="0.8", zorder=0)
    panels[2].set(title=f"(c) random features, $P$ = {FIXED['samples']}", xlabel="features $N$")
    panels[0].set_ylabel("mean square error")
    ts.study.plain_ticks(panels[1].yaxis, [0.05, 0.1, 0.2])
    ts.study.plain_ticks(panels[2].xaxis, [20, 50, 100, 200, 400])
    panels[0].legend()
    return {"kernel_learning_curves": figure}


def curves(panel, lines, points, ridges):
    for ridge in ridges:
        label = rf"$\lambda = 10^{{{round(np.log10(ridge))}}}$"
        color = ts.study.PALETTE[RIDGES.index(ridge)]
        ts.study.line_and_points(panel, lines.sel(ridge=ridge), points.sel(ridge=ridge), color, label=label)
    panel.set(xscale="log", yscale="log")


# %%
if __name__ == "__main__":
    ts.study.set_up()
    data = simulate(PRESETS["smoke"])
    draw(data)
    print(*claims(data), sep="\n")
