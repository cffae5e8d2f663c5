"""Where does a scaling exponent come from? The spectrum of a kernel matrix and the target's power in it, measured on
data, give the learning curve with no free parameter, and so the exponent that a fit to errors finds.
"""

# %% [markdown]
# # From a measured spectrum to a scaling exponent
#
# A kernel matrix on $n$ inputs has eigenvalues $n \eta_i$ and eigenvectors, on which targets have powers $a_i^2$. If
# $P$ of the $n$ inputs are learned from, the error on the others is that of kernel regression without ridge at the
# eigenvalues $\eta_i + \lambda / n$, over $1 - P / n$: a free compression. Where $\eta_i \sim i^{-b}$ and
# $a_i^2 \sim i^{-a}$ it falls like $P^{-\min(a - 1, 2 b)}$.
#
# Two data sets: Gaussian features of power laws, and images of digits, odd or even, under a network's tangent kernel.

# %%
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import theorysim as ts

TITLE = "From a measured spectrum to a scaling exponent"
SOURCES = ("arXiv:2002.02561", "arXiv:2006.13198", "arXiv:1806.07572", "arXiv:2209.06640")


class Preset(NamedTuple):
    """Inputs, sizes of training sets, how many of each, and fits to resampled errors."""

    inputs: int
    samples: tuple[int, ...]
    repeats: int
    resamples: int


PRESETS = {
    "smoke": Preset(400, (16, 32, 64, 128), repeats=16, resamples=64),
    "laptop": Preset(1000, (16, 24, 36, 54, 80, 120, 180), repeats=24, resamples=192),
    "paper": Preset(1797, (16, 24, 36, 54, 80, 120, 180, 270), repeats=512, resamples=2000),
}
SETS = ("power laws", "digits")
DECAYS, MODES = (1.5, 2.0), 4000  # of eigenvalues and target
RIDGES = {"power laws": 1e-3, "digits": 3.0}
WINDOW = (10, 150)  # ranks that the exponent is read from


def power_laws(inputs, key):
    spectrum = ts.scaling.kernel_regression.power_law(*DECAYS, modes=MODES)
    of_inputs, of_signs = jax.random.split(key)
    phi = jax.random.normal(of_inputs, (inputs, MODES))
    signs = jax.random.rademacher(of_signs, (MODES,), float)
    return (phi * spectrum.eigenvalues[None]) @ phi.T, phi @ (signs * jnp.sqrt(spectrum.power))


def digits(inputs):
    data = ts.study.digits(inputs, scale="image", seed=0)
    x = jnp.asarray(data.images)
    kernel = ts.infinite.fully_connected(ts.infinite.relu, x, depth=2, weight_var=2.0, bias_var=0.1).ntk
    return kernel, jnp.asarray(data.parity)


# %% [markdown]
# ## Spectrum, prediction, regressions, and a fit to their errors


# %%
def simulate(preset):
    theory = ts.scaling.kernel_regression
    data = {"power laws": power_laws(preset.inputs, jax.random.key(0)), "digits": digits(preset.inputs)}
    spectra = {name: theory.measured_spectrum(*data[name]) for name in SETS}
    most = preset.samples[-1]

    def predicted(data, samples):
        spectrum, ridge = data
        return {"error": theory.held_out_error(spectrum, samples, ridge=ridge)}

    def left_over(data, samples, key):
        """One program for all sizes: rows beyond the first are zero, and inputs that no size uses are predicted."""
        kernel, y, ridge = data
        order = jax.random.permutation(key, preset.inputs)
        train, test = order[:most], order[most:]
        used = jnp.arange(most) < samples
        block = kernel[train][:, train] * used[:, None] * used[None]
        weights = jax.scipy.linalg.solve(block + jnp.diag(ridge + ~used), y[train] * used, assume_a="pos")
        return {"error": jnp.square(kernel[test][:, train] @ (weights * used) - y[test]).mean()}

    def exponent(inputs, key):
        spectrum = theory.measured_spectrum(*power_laws(inputs, key))
        return {"exponent": theory.predicted_exponent(spectrum, *WINDOW).exponent}

    sizes = np.array(preset.samples, float)
    fine = np.union1d(np.geomspace(sizes[0], sizes[-1], 40), sizes)
    of_theory = ts.labelled({name: (spectra[name], RIDGES[name]) for name in SETS})
    of_data = ts.labelled({name: (*data[name], RIDGES[name]) for name in SETS})
    lines = ts.sweep(predicted, ts.Grid(data=of_theory, samples=fine))
    points = ts.sweep(left_over, ts.Grid(data=of_data, samples=sizes), key=jax.random.key(2), repeats=preset.repeats)
    measured = {
        name: (("data", "rank"), np.stack([getattr(spectra[of], name) for of in SETS]))
        for name in ("eigenvalues", "power")
    }
    return xr.DataTree.from_dict(
        {
            "theory": lines,
            "simulation": points,
            "exponents": ts.sweep(
                exponent,
                ts.Grid(inputs=ts.static(preset.inputs)),
                key=jax.random.key(4),
                repeats=preset.repeats,
            ),
            "spectrum": xr.Dataset(measured, {"data": list(SETS), "rank": 1 + np.arange(preset.inputs)}),
            "fits": xr.concat(
                [fits(lines, points, name, preset) for name in SETS], xr.DataArray(list(SETS), dims="data", name="data")
            ),
        }
    )


def fits(lines, points, name, preset):
    """The exponent of b x^-c, in the theory at the sizes of the regressions, and in their errors with its bootstrap."""
    table = points["error"].sel(data=name).transpose("samples", "repeat")
    line = lines["error"].sel(data=name, samples=points["samples"])
    least = {"objective": ts.scaling.least_squares(), "starts": 8}
    theory = ts.scaling.fit("m1", {"x": points["samples"].values, "loss": line.values}, **least)
    runs = {"x": np.repeat(points["samples"].values, preset.repeats), "loss": table.values.ravel()}
    found = ts.scaling.fit("m1", runs, **least)
    draws = ts.scaling.bootstrap(found, key=jax.random.key(3), samples=preset.resamples)
    low, high = draws.interval("c")
    return xr.Dataset(
        {
            "theory": theory.parameters["c"],
            "fit": found.parameters["c"],
            "standard_error": float(draws.standard_error("c")),
            "low": low,
            "high": high,
            "scale": found.parameters["b"],
        }
    )


def decays(data, name):
    spectrum = data["spectrum"].to_dataset().sel(data=name)
    of = ts.scaling.kernel_regression.Spectrum(*(jnp.asarray(spectrum[v].values) for v in ("eigenvalues", "power")))
    theory = ts.scaling.kernel_regression
    return (
        theory.decay(of.eigenvalues, *WINDOW),
        theory.decay(of.power, *WINDOW),
        theory.predicted_exponent(of, *WINDOW),
    )


# %% [markdown]
# ## What must agree


# %%
def claims(data):
    yield ts.study.agrees(
        "exponent, power laws",
        "power laws: exponent of the error from the decays of measured spectra, mean over data sets",
        float(ts.scaling.kernel_regression.power_law_exponents(*DECAYS).samples),
        ts.study.mean_estimate(data["exponents"]["exponent"].isel(inputs=0)),
    )
    for name in SETS:
        points = data["simulation"]["error"].sel(data=name)
        line = data["theory"]["error"].sel(data=name, samples=points["samples"])
        yield ts.study.limit_agrees(
            f"error, {name}",
            f"{name}: ratio of the error of regressions to that of the measured spectrum, extrapolated in 1 / samples",
            1.0,
            points / line,
            along="samples",
        )
        fit = data["fits"].to_dataset().sel(data=name)
        yield ts.study.agrees(
            f"fitted exponent, {name}",
            f"{name}: exponent fitted to errors of regressions, and to the curve of the measured spectrum",
            float(fit["theory"]),
            ts.study.Estimate(float(fit["fit"]), float(fit["standard_error"])),
            next_order=1 / float(points["samples"][0]),
            why="1 / samples of the smallest size",
        )


# %% [markdown]
# ## Theory as lines, regressions as points


# %%
def draw(data):
    figure, panels = plt.subplots(1, 3, figsize=ts.study.page(1, 3, 1.05))
    spectrum = data["spectrum"].to_dataset()
    for color, name in zip(ts.study.PALETTE, SETS, strict=False):
        of = spectrum.sel(data=name)
        for panel, values, fit in zip(panels, (of["eigenvalues"], of["power"]), decays(data, name), strict=False):
            shown = values / values.sum()
            panel.plot(of["rank"], shown, ".", color=color, markersize=1.5, alpha=0.6)
            rank, slope = np.array(WINDOW, float), float(fit.exponent)
            within = slice(WINDOW[0] - 1, WINDOW[1])
            height = float((shown * of["rank"] ** slope)[within].mean())
            label = f"{name}, {slope:.2f} ± {float(fit.standard_error):.2f}"
            panel.plot(rank, height * rank**-slope, color=color, label=label)
        line, points = data["theory"]["error"].sel(data=name), data["simulation"]["error"].sel(data=name)
        mean, error = ts.study.mean_and_error(points)
        panels[2].plot(line["samples"], line, color=color)
        of = data["fits"].to_dataset().sel(data=name)
        label = f"{name}, {float(of['fit']):.2f} [{float(of['low']):.2f}, {float(of['high']):.2f}]"
        panels[2].errorbar(mean["samples"], mean, error, fmt="o", color=color, label=label)
    for panel, title in zip(panels, ("(a) eigenvalues", "(b) power of the target", "(c) held-out error"), strict=True):
        panel.set(title=title, xscale="log", yscale="log", xlabel="rank $i$")
        panel.legend(loc="lower left", handlelength=1.2, borderaxespad=0.2)
    panels[0].set(ylabel=r"$\eta_i\, /\, \sum \eta$", ylim=(1e-8, 2))
    panels[1].set(ylabel=r"$a_i^2\, /\, \sum a^2$", ylim=(1e-15, 3))
    ts.study.plain_ticks(panels[2].xaxis, [20, 50, 100])
    low, high = panels[2].get_ylim()
    panels[2].set(xlabel="samples $P$", ylabel="mean square error", ylim=(low / 4, high))
    return {"spectrum_to_exponent": figure}


# %%
if __name__ == "__main__":
    ts.study.set_up()
    data = simulate(PRESETS["smoke"])
    draw(data)
    print(*claims(data), sep="\n")
