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
import numpy as np

import theorysim as ts

TITLE = "Order and chaos in wide networks"
SOURCES = ("arXiv:1606.05340", "arXiv:1611.01232")


class Preset(NamedTuple):
    """Theory on `points` x `points`; networks on a coarse grid, `repeats` at each of its points."""

    activations: tuple[ts.infinite.Activation, ...]
    points: int
    coarse: int
    width: int
    depth: int
    repeats: int


BOTH = (ts.infinite.tanh, ts.infinite.erf)
PRESETS = {
    "smoke": Preset(BOTH[:1], points=40, coarse=4, width=128, depth=24, repeats=8),
    "laptop": Preset(BOTH, points=200, coarse=7, width=256, depth=32, repeats=16),
    "paper": Preset(BOTH, points=1000, coarse=19, width=1024, depth=64, repeats=64),
}
WEIGHT_VAR, BIAS_VAR = (0.5, 4.0), (0.0, 1.0)
COARSE_BIAS_VAR = (0.05, 0.3, 0.6, 0.9)
START = 0.5  # correlation of the two inputs
EARLY = 4  # the layer in which the networks' correlation is compared
SETTLED = 16  # from this layer on, the networks' variance is averaged
ORDERED, CHAOTIC = 0.75, 1.2  # slopes well below and above 1, where inputs soon become alike or different

# %% [markdown]
# ## Theory on a fine grid, networks on a coarse one


# %%
def simulate(preset):
    phase = ts.infinite.phase

    def theory(activation, weight_var, bias_var):
        q = phase.fixed_point(activation, weight_var=weight_var, bias_var=bias_var)
        c = phase.fixed_correlation(activation, q, weight_var=weight_var)
        length = phase.correlation_length(activation, q, c, weight_var=weight_var)
        return {"q": q, "chi": phase.chi(activation, q, weight_var=weight_var), "c": c, "length": length}

    def path(activation, weight_var, bias_var):
        """The correlation, layer by layer."""
        q = phase.fixed_point(activation, weight_var=weight_var, bias_var=bias_var)

        def layer(c, _):
            c = phase.correlation_map(activation, c, q, weight_var=weight_var, bias_var=bias_var)
            return c, c

        correlation = jax.lax.scan(layer, jnp.full_like(q, START), length=preset.depth)[1]
        return {"variance": q, "chi": phase.chi(activation, q, weight_var=weight_var), "correlation": correlation}

    def network(activation, weight_var, bias_var, key):
        variances = {"weight_var": weight_var, "bias_var": bias_var}
        size = {"width": preset.width, "depth": preset.depth}
        start = {"variance": phase.fixed_point(activation, **variances), "correlation": START}
        return ts.networks.propagate(activation, **variances, key=key, **size, **start)

    def critical(activation, bias_var):
        return {"weight_var": phase.critical_weight_var(activation, bias_var=bias_var)}

    def grid(weight_vars, bias_vars):
        weight_var = np.linspace(*WEIGHT_VAR, weight_vars)
        return ts.Grid(activation=activations, weight_var=weight_var, bias_var=np.asarray(bias_vars))

    activations = ts.static(*preset.activations)
    fine = grid(preset.points, np.linspace(*BIAS_VAR, preset.points))
    coarse = grid(preset.coarse, COARSE_BIAS_VAR)
    line = ts.Grid(activation=activations, bias_var=np.geomspace(1e-4, BIAS_VAR[1], preset.points))
    layers = {"coords": {"layer": 1 + np.arange(preset.depth)}}
    dims = {"variance": ["layer"], "correlation": ["layer"]}
    random = {"key": jax.random.key(0), "repeats": preset.repeats}
    return ts.study.tree(
        theory=ts.sweep(theory, fine),
        critical_line=ts.sweep(critical, line),
        path=ts.sweep(path, coarse, dims={"correlation": ["layer"]}, **layers),
        simulation=ts.sweep(network, coarse, dims=dims, **random, **layers),
    )


# %% [markdown]
# ## What must agree
#
# Random networks of width $N$ scatter about the theory like $N^{-1/2}$; with $R$ of them, a deviation in units of its
# standard error is Student's $t$ with $R - 1$ degrees of freedom.


# %%
def claims(data):
    networks, path = data["simulation"].to_dataset(), data["path"].to_dataset()
    early, expected = (of["correlation"].sel(layer=EARLY) for of in (networks, path))
    for what, samples, theory in (
        ("variance of deep layers", settled(networks), path["variance"]),
        ("correlation of early layers", early, expected),
    ):
        yield ts.study.scatter_agrees(what, what, samples, theory)
    ordered, chaotic = path["chi"] < ORDERED, path["chi"] > CHAOTIC
    ratio = (decay_rate(networks) / decay_rate(path)).where(ordered)
    yield ts.study.agrees(
        "order",
        "ordered phase: rate at which two inputs become alike between layers 4 and 8, ratio of networks to theory",
        1,
        ts.study.mean_of_points(ratio),
    )
    deep, expected = (node["correlation"].isel(layer=-1).where(chaotic) for node in (networks, path))
    yield ts.study.agrees(
        "chaos",
        f"chaotic phase: mean correlation of two inputs after {path.sizes['layer']} layers",
        expected.mean(),
        ts.study.mean_of_points(deep),
    )


def settled(networks):
    """The variance in deep layers."""
    return networks["variance"].sel(layer=slice(SETTLED, None)).mean("layer")


def decay_rate(data):
    """-log of the factor by which 1 - c shrinks in a layer, between layers 4 and 8."""
    first, last = (np.log(1 - data["correlation"].sel(layer=layer)) for layer in (4, 8))
    return (first - last) / 4


# %% [markdown]
# ## Theory as lines, networks as points


# %%
def draw(data):
    return {str(name): draw_activation(data.sel(activation=name)) for name in data["theory"]["activation"].values}


def draw_activation(data):
    figure, axes = plt.subplots(2, 3, figsize=ts.study.page(2, 3, 0.92))
    figure.colorbar(map_panel(axes[0, 0], data), ax=axes[0, 0], pad=0.03)
    for color, bias_var in zip(ts.study.PALETTE, COARSE_BIAS_VAR, strict=False):
        lines(axes, data, bias_var, color)
    axes[0, 1].set(title="(b) variance, deep", ylabel="$q^*$")
    axes[0, 2].axhline(1, color="grey", linewidth=0.6, linestyle="--")
    axes[0, 2].set(title="(c) slope at equal inputs", ylabel=r"$\chi$")
    axes[0, 2].legend(loc="lower right", handlelength=1.2)
    axes[1, 0].set(title="(d) correlation length", ylabel=r"$\xi$ (layers)", yscale="log", ylim=(0.4, 300))
    depth = data["path"].sizes["layer"]
    axes[1, 1].set(title=f"(e) correlation, dotted: layer {depth}", ylabel="$c^*$", ylim=(0, 1.05))
    for panel in axes.flat[:5]:
        panel.set_xlabel("weight variance")
    path_panel(axes[1, 2], data, COARSE_BIAS_VAR[1])
    return figure


def map_panel(panel, data):
    fine, line = data["theory"], data["critical_line"]
    deep = data["simulation"]["correlation"].isel(layer=-1).mean("repeat")
    shades = {"cmap": "YlGnBu_r", "vmin": 0, "vmax": 1}
    picture = panel.pcolormesh(fine["weight_var"], fine["bias_var"], fine["c"].T, rasterized=True, **shades)
    panel.plot(line["weight_var"], line["bias_var"], color="black")
    grid = np.meshgrid(deep["weight_var"], deep["bias_var"], indexing="ij")
    panel.scatter(*grid, c=deep, s=20, edgecolor="0.35", linewidth=0.5, clip_on=False, zorder=3, **shades)
    panel.set(title="(a) correlation, deep", ylabel="bias variance", xlim=WEIGHT_VAR, ylim=BIAS_VAR)
    panel.text(1.3, 0.75, "order", ha="center", va="center")
    panel.text(3.1, 0.15, "chaos", ha="center", color="white")
    return picture


def lines(axes, data, bias_var, color):
    """Panels (b) to (e), along one bias variance."""
    theory = data["theory"].to_dataset().sel(bias_var=bias_var, method="nearest")
    path, networks = (data[node].to_dataset().sel(bias_var=bias_var) for node in ("path", "simulation"))
    for panel, name in zip(axes.flat[1:5], ("q", "chi", "length", "c"), strict=True):
        panel.plot(theory["weight_var"], theory[name], color=color, label=rf"$\sigma_b^2 = {bias_var:g}$")
    ts.study.points(axes[0, 1], settled(networks), color=color)
    ordered = np.flatnonzero(path["chi"] < ORDERED)
    rate, error = ts.study.mean_and_error(decay_rate(networks).isel(weight_var=ordered))
    axes[1, 0].errorbar(rate["weight_var"], 1 / rate, error / rate**2, fmt="o", color=color)
    axes[1, 1].plot(path["weight_var"], path["correlation"].isel(layer=-1), color=color, linestyle=":")
    ts.study.points(axes[1, 1], networks["correlation"].isel(layer=-1), color=color)


def path_panel(panel, data, bias_var):
    path, networks = (data[node]["correlation"].sel(bias_var=bias_var) for node in ("path", "simulation"))
    shown = np.unique(np.linspace(1, path.sizes["weight_var"] - 1, 4).astype(int))
    for color, weight_var in zip(ts.study.PALETTE, path["weight_var"].values[shown], strict=False):
        label = rf"$\sigma_w^2 = {weight_var:.2g}$"
        panel.plot(path["layer"], path.sel(weight_var=weight_var), color=color, label=label)
        ts.study.points(panel, networks.sel(weight_var=weight_var), color=color, markersize=2)
    panel.set(title=rf"(f) on the way, $\sigma_b^2 = {bias_var:g}$", xlabel="layer")
    panel.set(ylabel="correlation", ylim=(0, 1.05))
    panel.legend(loc="lower right", ncols=2, columnspacing=1)


# %%
if __name__ == "__main__":
    ts.study.set_up()
    data = simulate(PRESETS["smoke"])
    draw(data)
    print(*claims(data), sep="\n")
