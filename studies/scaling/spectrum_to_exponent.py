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
    """Inputs, modes of the power laws, sizes of training sets, how many of each, and fits to resampled errors."""

    inputs: int
    modes: int
    samples: tuple[int, ...]
    repeats: int
    resamples: int


PRESETS = {
    "smoke": Preset(400, 1000, (16, 32, 64, 128), repeats=16, resamples=64),
    "laptop": Preset(1000, 4000, (16, 24, 36, 54, 80, 120, 180), repeats=24, resamples=192),
    "paper": Preset(1797, 4000, (16, 24, 36, 54, 80, 120, 180, 270), repeats=512, resamples=2000),
}
SETS = ("power laws", "digits")
DECAYS = 1.5, 2.0  # of eigenvalues and target
RIDGES = {"power laws": 1e-3, "digits": 3.0}
WINDOW = (10, 150)  # ranks that the exponent is read from


def power_laws(inputs, modes, key):
    spectrum = ts.scaling.kernel_regression.power_law(*DECAYS, modes=modes)
    of_inputs, of_signs = jax.random.split(key)
    phi = jax.random.normal(of_inputs, (inputs * modes,)).reshape(inputs, modes)
    signs = jax.random.rademacher(of_signs, (modes,), float)
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
    random = jax.jit(lambda key: power_laws(preset.inputs, preset.modes, key))
    data = {"power laws": random(jax.random.key(0)), "digits": digits(preset.inputs)}
    spectra = {name: theory.measured_spectrum(*data[name]) for name in SETS}
    most = preset.samples[-1]

    def predicted(data, samples):
        spectrum, _, _, ridge = data
        return {"error": theory.held_out_error(spectrum, samples, ridge=ridge)}

    def left_over(data, samples, key):
        """One program for all sizes: rows beyond the first are zero, and inputs that no size uses are predicted."""
        _, kernel, y, ridge = data
        train, test = jnp.split(jax.random.permutation(key, preset.inputs), [most])
        used = jnp.arange(most) < samples
        weights = theory.solve_used(kernel[train][:, train], y[train], used, ridge=ridge)
        return {"error": jnp.square(kernel[test][:, train] @ weights - y[test]).mean()}

    def exponent(inputs, key):
        spectrum = theory.measured_spectrum(*power_laws(inputs, preset.modes, key))
        return {"exponent": theory.predicted_exponent(spectrum, *WINDOW).exponent}

    sizes = np.array(preset.samples, float)
    fine = np.union1d(np.geomspace(sizes[0], sizes[-1], 40), sizes)
    all_data = ts.labelled({name: (spectra[name], *data[name], RIDGES[name]) for name in SETS})
    lines = ts.sweep(predicted, ts.Grid(data=all_data, samples=fine))
    points = ts.sweep(left_over, ts.Grid(data=all_data, samples=sizes), key=jax.random.key(2), repeats=preset.repeats)
    many = {"key": jax.random.key(4), "repeats": preset.repeats}
    return ts.study.tree(
        theory=lines,
        simulation=points,
        exponents=ts.sweep(exponent, ts.Grid(inputs=ts.static(preset.inputs)), **many),
        spectrum=ts.study.stack({name: measured(spectra[name]) for name in SETS}, "data"),
        fits=ts.study.stack({name: fits(lines, points, name, preset) for name in SETS}, "data"),
    )


def measured(spectrum):
    """Eigenvalues and the target's power in each, and their decays over the window of ranks."""
    names, values = ("eigenvalues", "power"), (spectrum.eigenvalues, spectrum.power)
    exponent, error = zip(*(ts.scaling.kernel_regression.decay(of, *WINDOW) for of in values), strict=True)
    found = {"value": (("of", "rank"), np.stack(values)), "decay": ("of", np.array(exponent))}
    labels = {"of": list(names), "rank": 1 + np.arange(len(spectrum.power))}
    return xr.Dataset({**found, "standard_error": ("of", np.array(error))}, labels)


def fits(lines, points, name, preset):
    """The exponent of b x^-c, in the theory at the sizes of the regressions, and in their errors with its bootstrap."""
    x, least = points["samples"].values, {"objective": ts.scaling.least_squares()}
    losses = points["error"].sel(data=name).transpose("samples", "repeat").values.ravel()
    theory = ts.scaling.fit("m1", {"x": x, "loss": lines["error"].sel(data=name, samples=x).values}, **least)
    found = ts.scaling.fit("m1", {"x": np.repeat(x, preset.repeats), "loss": losses}, **least)
    draws = ts.scaling.bootstrap(found, key=jax.random.key(3), samples=preset.resamples)
    low, high = draws.interval("c")
    values = {"theory": theory.parameters["c"], "fit": found.parameters["c"], "low": low, "high": high}
    return xr.Dataset({**values, "standard_error": float(draws.standard_error("c"))})


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
    for color, name in zip(ts.study.PALETTE, SETS, strict=False):
        spectrum, fit = (data[node].to_dataset().sel(data=name) for node in ("spectrum", "fits"))
        for panel, of in zip(panels, spectrum["of"].values, strict=False):
            spectrum_panel(panel, spectrum.sel(of=of), color, name)
        line, points = (data[node]["error"].sel(data=name) for node in ("theory", "simulation"))
        label = f"{name}, {float(fit['fit']):.2f} [{float(fit['low']):.2f}, {float(fit['high']):.2f}]"
        ts.study.line_and_points(panels[2], line, points, color, label=label)
    for panel, title in zip(panels, ("(a) eigenvalues", "(b) power of the target", "(c) held-out error"), strict=True):
        panel.set(title=title, xscale="log", yscale="log", xlabel="rank $i$")
        panel.legend(loc="lower left", handlelength=1.2, borderaxespad=0.2)
    panels[0].set(ylabel=r"$\eta_i\, /\, \sum \eta$", ylim=(1e-8, 2))
    panels[1].set(ylabel=r"$a_i^2\, /\, \sum a^2$", ylim=(1e-15, 3))
    ts.study.plain_ticks(panels[2].xaxis, [20, 50, 100])
    low, high = panels[2].get_ylim()
    panels[2].set(xlabel="samples $P$", ylabel="mean square error", ylim=(low / 4, high))
    return {"spectrum_to_exponent": figure}


def spectrum_panel(panel, spectrum, color, name):
    """Shares of the sum, and a line of the measured decay over the window of ranks."""
    rank, slope = spectrum["rank"], spectrum["decay"].item()
    shown = spectrum["value"] / spectrum["value"].sum()
    panel.plot(rank, shown, ".", color=color, markersize=1.5, alpha=0.6)
    window, height = np.array(WINDOW, float), (shown * rank**slope)[WINDOW[0] - 1 : WINDOW[1]].mean().item()
    label = f"{name}, {slope:.2f} ± {spectrum['standard_error'].item():.2f}"
    panel.plot(window, height * window**-slope, color=color, label=label)


# %%
if __name__ == "__main__":
    ts.study.set_up()
    data = simulate(PRESETS["smoke"])
    draw(data)
    print(*claims(data), sep="\n")
