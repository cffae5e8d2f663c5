"""Does a deep random network forget its inputs, or tear them apart? Mean-field theory answers with two numbers, the
fixed point of the variance and the slope of the correlation map there, and random networks of finite width agree.
"""

# %% [markdown]
# # Order and chaos in wide networks
#
# A layer of weight variance $\sigma_w^2$ and bias variance $\sigma_b^2$ maps the variance $q$ of its preactivations
# to $V(q) = \sigma_w^2\, E[\phi(\sqrt q z)^2] + \sigma_b^2$, and the correlation $c$ of two inputs to
# $C(c) = (\sigma_w^2\, E[\phi(u)\phi(v)] + \sigma_b^2) / q$. The slope $\chi = C'(1)$ separates order from chaos.

# %%
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import mpmath
import numpy as np
import xarray as xr

import theorysim as ts

TITLE = "Order and chaos in wide networks"
SOURCES = ("arXiv:1606.05340", "arXiv:1611.01232")


class Preset(NamedTuple):
    """Theory on `points` x `points`; networks on a coarse grid, `repeats` at each of its points."""

    points: int
    coarse: int
    width: int
    depth: int
    repeats: int


PRESETS = {
    "smoke": Preset(points=40, coarse=4, width=128, depth=24, repeats=8),
    "laptop": Preset(points=200, coarse=9, width=256, depth=32, repeats=16),
    "paper": Preset(points=1000, coarse=19, width=1024, depth=64, repeats=64),
}
ACTIVATIONS = ts.static(ts.infinite.tanh, ts.infinite.erf)
WEIGHT_VAR, BIAS_VAR = (0.5, 4.0), (0.0, 1.0)
COARSE_BIAS_VAR = (0.05, 0.3, 0.6, 0.9)
START = 0.5  # correlation of the two inputs
EARLY = 4  # the layer in which the networks' correlation is compared
SETTLED = 16  # from this layer on, the networks' variance is averaged

# %% [markdown]
# ## Theory on a fine grid, networks on a coarse one


# %%
def simulate(preset):
    phase = ts.infinite.phase

    def theory(activation, weight_var, bias_var):
        q = phase.fixed_point(activation, weight_var, bias_var)
        c = phase.fixed_correlation(activation, q, weight_var)
        length = phase.correlation_length(activation, q, c, weight_var)
        return {"q": q, "chi": phase.slope(activation, q, weight_var), "c": c, "length": length}

    def path(activation, weight_var, bias_var):
        q = phase.fixed_point(activation, weight_var, bias_var)

        def layer(c, _):
            c = phase.correlation_map(activation, c, q, weight_var, bias_var)
            return c, c

        return {"c": jax.lax.scan(layer, jnp.full_like(q, START), length=preset.depth)[1]}

    def network(activation, weight_var, bias_var, key):
        q = phase.fixed_point(activation, weight_var, bias_var)
        size = {"width": preset.width, "depth": preset.depth}
        start = {"variance": q, "correlation": START}
        return ts.networks.propagate(activation, weight_var, bias_var, key=key, **size, **start)

    def critical(activation, bias_var):
        return {"weight_var": phase.critical_weight_var(activation, bias_var)}

    fine = ts.Grid(
        activation=ACTIVATIONS,
        weight_var=np.linspace(*WEIGHT_VAR, preset.points),
        bias_var=np.linspace(*BIAS_VAR, preset.points),
    )
    coarse = ts.Grid(
        activation=ACTIVATIONS,
        weight_var=np.linspace(*WEIGHT_VAR, preset.coarse),
        bias_var=np.array(COARSE_BIAS_VAR),
    )
    line = ts.Grid(activation=ACTIVATIONS, bias_var=np.geomspace(1e-4, BIAS_VAR[1], preset.points))
    layers = {"coords": {"layer": 1 + np.arange(preset.depth)}}
    return xr.DataTree.from_dict(
        {
            "theory": ts.sweep(theory, fine),
            "critical_line": ts.sweep(critical, line),
            "theory_path": ts.sweep(path, coarse, dims={"c": ["layer"]}, **layers),
            "simulation": ts.sweep(
                network,
                coarse,
                key=jax.random.key(0),
                repeats=preset.repeats,
                dims={"variance": ["layer"], "correlation": ["layer"]},
                **layers,
            ),
            "coarse_theory": ts.sweep(theory, coarse),
            "reference": reference(),
        }
    )


def reference():
    """The critical line in 20 digits, by mpmath: weight_var = 1 / E phi'^2 where q = V(q)."""
    bias_var = [0.0025, 0.01, 0.05, 0.25]
    derivatives = {
        "tanh": lambda x: mpmath.sech(x) ** 2,
        "erf": lambda x: 2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-x * x),
    }

    def mean_square(fn, q):
        return 2 * mpmath.quad(lambda z: fn(mpmath.sqrt(q) * z) ** 2 * mpmath.npdf(z), [0, 1, 2, 4, 8, 12])

    def weight_var(name, bias_var):
        fn = getattr(mpmath, name)

        def residual(q):
            return q - mean_square(fn, q) / mean_square(derivatives[name], q) - bias_var

        q = mpmath.findroot(residual, (mpmath.cbrt(bias_var), 2 * mpmath.cbrt(bias_var)), solver="anderson")
        return float(1 / mean_square(derivatives[name], q))

    with mpmath.workdps(20):
        values = [[weight_var(name, mpmath.mpf(str(b))) for b in bias_var] for name in derivatives]
    return xr.Dataset(
        {"weight_var": (("activation", "bias_var"), values)}, {"activation": list(derivatives), "bias_var": bias_var}
    )


# %% [markdown]
# ## What must agree
#
# Random networks of width $N$ scatter about the theory like $N^{-1/2}$; with $R$ of them, a deviation in units of its
# standard error is Student's $t$, of mean square $(R - 1) / (R - 3)$.


# %%
def claims(data):
    for name in data["reference"]["activation"].values:
        exact = data["reference"]["weight_var"].sel(activation=name)
        found = [ts.infinite.phase.critical_weight_var(getattr(ts.infinite, name), b) for b in exact["bias_var"].values]
        yield ts.study.Claim(
            f"critical weight variance of {name} at four bias variances: largest deviation from mpmath",
            predicted=0,
            measured=np.abs(exact.values - np.array(found)).max(),
            tolerance=1e-6,
            why="what a figure needs; the quadrature's own error is below 1e-12 at these four",
        )
    yield agreement("variance of deep layers", *variances(data))
    yield agreement(f"correlation of two inputs after {EARLY} layers", *correlations(data))
    ratio, error = decay_ratio(data)
    yield ts.study.Claim(
        "ordered phase: rate at which two inputs become alike between layers 4 and 8, networks over theory",
        predicted=1,
        measured=ratio,
        tolerance=3 * error,
        why="three standard errors over the networks",
    )


def agreement(what, mean, error, theory, repeats):
    squares = ((mean - theory) / error).values ** 2
    expected = (repeats - 1) / (repeats - 3)
    # The variance of t^2, by the moments of Student's distribution.
    spread = expected * np.sqrt((2 * repeats - 4) / (repeats - 5) / squares.size)
    return ts.study.Claim(
        f"{what}: mean square deviation of networks from theory, in standard errors",
        predicted=expected,
        measured=squares.mean(),
        tolerance=3 * spread,
        why=f"three standard errors of the mean of {squares.size} squared Student t",
    )


def variances(data):
    late = data["simulation"]["variance"].sel(layer=slice(SETTLED, None)).mean("layer")
    return *ts.study.mean_and_error(late), data["coarse_theory"]["q"], late.sizes["repeat"]


def correlations(data):
    """After few layers: in many, the distance of two inputs is a product of many factors, and no longer normal."""
    early = data["simulation"]["correlation"].sel(layer=EARLY)
    return *ts.study.mean_and_error(early), data["theory_path"]["c"].sel(layer=EARLY), early.sizes["repeat"]


def decay_rate(correlation):
    """-log of the factor by which 1 - c shrinks in a layer, between layers 4 and 8."""
    return (np.log(1 - correlation.sel(layer=4)) - np.log(1 - correlation.sel(layer=8))) / 4


def decay_ratio(data):
    ordered = data["coarse_theory"]["chi"] < 0.75
    theory = decay_rate(data["theory_path"]["c"])
    ratio, error = ts.study.mean_and_error(decay_rate(data["simulation"]["correlation"]) / theory)
    return float(ratio.where(ordered).mean()), float(np.sqrt((error.where(ordered) ** 2).sum()) / ordered.sum())


# %% [markdown]
# ## Theory as lines, networks as points


# %%
def draw(data):
    return {str(name): draw_activation(data, name) for name in data["theory"]["activation"].values}


def draw_activation(data, name):
    fine, line, path, simulation, coarse = (
        data[node].to_dataset().sel(activation=name)
        for node in ("theory", "critical_line", "theory_path", "simulation", "coarse_theory")
    )
    figure, axes = plt.subplots(2, 3, figsize=ts.study.page(2, 3, 0.92))
    depth = int(path["layer"][-1])
    last = simulation["correlation"].sel(layer=depth).mean("repeat")

    panel = axes[0, 0]
    shades = {"cmap": "YlGnBu_r", "vmin": 0, "vmax": 1}
    picture = panel.pcolormesh(fine["weight_var"], fine["bias_var"], fine["c"].T, rasterized=True, **shades)
    panel.plot(line["weight_var"], line["bias_var"], color="black")
    grid = np.meshgrid(coarse["weight_var"], coarse["bias_var"], indexing="ij")
    panel.scatter(*grid, c=last, s=20, edgecolor="0.35", linewidth=0.5, clip_on=False, zorder=3, **shades)
    panel.set(title="(a) correlation, deep", ylabel="bias variance", xlim=WEIGHT_VAR, ylim=BIAS_VAR)
    panel.text(1.3, 0.75, "order", ha="center", va="center")
    panel.text(3.1, 0.15, "chaos", ha="center", color="white")
    figure.colorbar(picture, ax=panel, pad=0.03)

    variance, variance_error, *_ = variances({"simulation": simulation, "coarse_theory": coarse})
    rate, rate_error = ts.study.mean_and_error(decay_rate(simulation["correlation"]))
    deep, deep_error = ts.study.mean_and_error(simulation["correlation"].sel(layer=depth))
    for color, bias_var in zip(ts.study.PALETTE, coarse["bias_var"].values, strict=False):
        theory = fine.sel(bias_var=bias_var, method="nearest")
        here = {"bias_var": bias_var}
        dots = {"fmt": "o", "color": color, "linestyle": "none"}
        weight_var = coarse["weight_var"].values
        label = rf"$\sigma_b^2 = {bias_var:g}$"
        axes[0, 1].plot(theory["weight_var"], theory["q"], color=color)
        axes[0, 1].errorbar(weight_var, variance.sel(here), variance_error.sel(here), **dots)
        axes[0, 2].plot(theory["weight_var"], theory["chi"], color=color, label=label)
        axes[1, 0].plot(theory["weight_var"], theory["length"], color=color)
        ordered = (coarse["chi"].sel(here) < 0.75).values
        length = 1 / rate.sel(here).values
        error = length**2 * rate_error.sel(here).values
        axes[1, 0].errorbar(weight_var[ordered], length[ordered], error[ordered], **dots)
        axes[1, 1].plot(theory["weight_var"], theory["c"], color=color)
        axes[1, 1].plot(weight_var, path["c"].sel(here).sel(layer=depth), color=color, linestyle=":")
        axes[1, 1].errorbar(weight_var, deep.sel(here), deep_error.sel(here), **dots)
    axes[0, 1].set(title="(b) variance, deep", ylabel="$q^*$")
    axes[0, 2].axhline(1, color="grey", linewidth=0.6, linestyle="--")
    axes[0, 2].set(title="(c) slope at equal inputs", ylabel=r"$\chi$")
    axes[0, 2].legend(loc="lower right", handlelength=1.2)
    axes[1, 0].set(title="(d) correlation length", ylabel=r"$\xi$ (layers)", yscale="log", ylim=(0.4, 300))
    axes[1, 1].set(title=f"(e) correlation, dotted: layer {depth}", ylabel="$c^*$", ylim=(0, 1.05))
    for panel in axes.flat[:5]:
        panel.set_xlabel("weight variance")

    panel, bias_var = axes[1, 2], coarse["bias_var"].values[1]
    travel, travel_error = ts.study.mean_and_error(simulation["correlation"])
    for color, index in zip(
        ts.study.PALETTE, np.linspace(1, coarse.sizes["weight_var"] - 1, 4).astype(int), strict=False
    ):
        here = {"weight_var": coarse["weight_var"].values[index], "bias_var": bias_var}
        panel.plot(path["layer"], path["c"].sel(here), color=color, label=rf"$\sigma_w^2 = {here['weight_var']:.2g}$")
        panel.errorbar(path["layer"], travel.sel(here), travel_error.sel(here), fmt="o", color=color, markersize=2)
    panel.set(
        title=rf"(f) on the way, $\sigma_b^2 = {bias_var:g}$", xlabel="layer", ylabel="correlation", ylim=(0, 1.05)
    )
    panel.legend(loc="lower right", ncols=2, columnspacing=1)
    return figure


# %%
if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    plt.rcParams.update(ts.study.style())
    data = simulate(PRESETS["smoke"])
    draw(data)
