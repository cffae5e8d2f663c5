"""Which wide networks learn features? Two exponents a layer decide; an atlas of a hundred thousand parametrisations,
and the coordinate check on networks drawn from all over it.
"""

# %% [markdown]
# # An atlas of abc-parametrisations
#
# The weights of layer $l$ are $W^l = n^{-a_l} w^l$ with $w^l \sim N(0, n^{-2 b_l})$, trained at the rate
# $\eta\, n^{-c}$. Only $a_l + b_l$, the size at initialisation, and $2 a_l + c$, the size of a step, matter. In a few
# steps the last hidden layer of a stable network changes by $n^{-r}$,
# $$r = \min(a_{L+1} + b_{L+1},\; 2 a_{L+1} + c) - 1 + \min_{l \le L}\,(2 a_l + c + [l = 1]).$$
# It learns features if $r = 0$, and is a kernel method if $r > 0$.
#
# The maps are slices for two hidden layers: $a_3 + b_3$ across, $2 a_2 + c = 2 a_1 + c + 1$ upwards, each for one
# $2 a_3 + c$. A point leaves $c$ open: the networks below have random ones.

# %%
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.colors import ListedColormap

import theorysim as ts

TITLE = "An atlas of abc-parametrisations"
SOURCES = ("arXiv:2011.14522",)


class Preset(NamedTuple):
    """Points of the maps a unit, a multiple of 4; widths of the networks, and how many of each."""

    resolution: int
    widths: tuple[int, ...]
    repeats: int


PRESETS = {
    "smoke": Preset(40, (64, 256), repeats=48),
    "laptop": Preset(160, (64, 128, 256, 512), repeats=48),
    "paper": Preset(400, (64, 128, 256, 512, 1024, 2048), repeats=256),
}
LATE = 4  # steps, where the learnt readout drives the features
LEARNING_RATE = 0.2
POINTS, DIMENSION, TARGET = 4, 8, 5.0  # targets far above the initial output

# The sample: readout's a + b, hidden 2 a + c, readout's 2 a + c, and how much slower the first layer steps. It starts
# with NTP, SP at c = 1, and muP.
SAMPLE = {
    "initial": np.array([0.5, 0.5, 1, 0.75, 0.75, 1, 1, 1, 1.75, 1.75, 1.75, 0.75, 0.75, 1, 1, 1.25]),
    "hidden": np.array([1, 1, 0, 0.5, 1, 0.75, 0.5, 1, 0, 0.5, 1, 0.5, 1, 0, 0.5, 0]),
    "readout": np.repeat([1.0, 1.5], [11, 5]),
    "lag": np.eye(16)[1],
}
NAMES = {"NTP, SP": 0, "muP": 2}
REGIMES = ts.infinite.abc.REGIMES

# %% [markdown]
# ## One sweep for the maps, one for the networks


# %%
def parametrisation(initial, hidden, readout, lag=0.0):
    """Of two hidden layers: a + b and 2 a + c layer by layer."""
    sizes = jnp.stack([jnp.zeros_like(initial), jnp.full_like(initial, 0.5), initial])
    return ts.infinite.abc.from_invariants(sizes, jnp.stack([hidden - 1 + lag, hidden, readout]))


def simulate(preset):
    abc = ts.infinite.abc

    def theory(initial, hidden, readout, lag=0.0):
        point = parametrisation(initial, hidden, readout, lag)
        return {"regime": abc.regime(point), "r": abc.feature_exponent(point), "output": abc.changes(point).output}

    unit = preset.resolution
    maps = ts.Grid(
        readout=np.array([1.0, 1.5]),
        initial=np.arange(2 * unit + 1) / unit,
        hidden=np.arange(-unit // 2, unit * 5 // 4 + 1) / unit,
    )
    gauges = jax.random.normal(jax.random.key(1), SAMPLE["initial"].shape)
    networks = jax.vmap(lambda theta, **point: abc.shift(parametrisation(**point), theta))(gauges, **SAMPLE)
    inputs = jax.random.normal(jax.random.key(2), (POINTS, DIMENSION), "float32")
    inputs /= jnp.linalg.norm(inputs, axis=1, keepdims=True)
    targets = TARGET * (-1.0) ** jnp.arange(POINTS, dtype="float32")[:, None]

    def network(width, key):
        def change(point):
            options = {"activation": jnp.tanh, "learning_rate": LEARNING_RATE, "steps": jnp.array([1, LATE])}
            return ts.networks.abc.coordinate_change(point, inputs, targets, key=key, width=width, **options)

        return {"change": jax.vmap(change)(networks)}  # all from the same draw

    labels = {
        "dims": {"change": ["sample", "step", "layer"]},
        "coords": {"step": [1, LATE], "layer": ["first", "last", "output"]},
    }
    random = {"key": jax.random.key(0), "repeats": preset.repeats}
    return ts.study.tree(
        theory=ts.sweep(theory, maps),
        sample=ts.sweep(theory, ts.Grid(sample=ts.zipped(**SAMPLE))),
        simulation=ts.sweep(network, ts.Grid(width=ts.static(*preset.widths)), **random, **labels),
    )


# %% [markdown]
# ## What must agree
#
# The exponents of the sample are multiples of $1/4$ in the last hidden layer, and of $1/2$ in the output. Those that
# share an $r$ are measured together, by their geometric mean.


# %%
def claims(data):
    sample, change = data["sample"].to_dataset(), measured(data)
    for r in np.unique(sample["r"]):
        together = np.log(change.sel(layer="last")).isel(sample=np.flatnonzero(sample["r"] == r))
        yield ts.study.exponent_agrees(
            f"r = {r:g}",
            f"exponent in the width of the last hidden layer's change, {together.sizes['sample']} parametrisations "
            f"of r = {r:g}",
            0 - r,
            np.exp(together.mean("sample")),
        )
    value, error = ts.study.exponents(change)
    for layer, exponent, apart in (("last", "r", 1 / 4), ("output", "output", 1 / 2)):
        distance = abs(value.sel(layer=layer) + sample[exponent])
        worst = int(np.argmax(distance.values))
        what = {"last": "the last hidden layer's change", "output": "the output's change"}[layer]
        yield ts.study.stays_below(
            f"regimes by {what}",
            f"largest distance of a measured exponent of {what} from theory's, {distance.size} parametrisations: below "
            f"{apart / 2:g}, where another exponent would be as near",
            apart / 2,
            ts.study.Estimate(distance[worst].item(), error.sel(layer=layer)[worst].item()),
        )


def measured(data):
    """After the first step; after some where the learnt readout outgrows the initial one, and drives the features."""
    theory, change = data["sample"], data["simulation"]["change"]
    late = theory["initial"] > theory["readout"]
    return xr.where(late, change.sel(step=LATE), change.sel(step=1))


# %% [markdown]
# ## The maps, and the networks on them


# %%
SHOWN = {2: ", muP", 3: "", 0: ", NTP", 4: "", 7: ""}
COLORS = dict(zip(REGIMES, ("#eeeeee", "#ddcc77", "#88ccee", "#882255"), strict=True))


def draw(data):
    figure, axes = plt.subplots(2, 2, figsize=ts.study.page(2, 2, 0.78))
    for panel, readout, letter in zip(axes[0], data["theory"]["readout"].values, "ab", strict=True):
        map_panel(panel, data, readout)
        panel.set_title(f"({letter}) readout's steps: $2 a_3 + c = {readout:g}$")
    exponent_panel(axes[1, 0], data)
    width_panel(axes[1, 1], data)
    return {"abc_atlas": figure}


def map_panel(panel, data, readout):
    here = data["theory"].to_dataset().sel(readout=readout)
    x, y, regime = here["initial"], here["hidden"], here["regime"].transpose("hidden", "initial")
    colors = ListedColormap([COLORS[name] for name in REGIMES])
    panel.pcolormesh(x, y, regime, cmap=colors, vmin=-0.5, vmax=3.5, rasterized=True)
    for name in ("kernel", "feature"):  # which may be lines: drawn wider than a cell
        rows, columns = np.nonzero(regime.values == REGIMES.index(name))
        panel.scatter(x[columns], y[rows], s=3, color=COLORS[name], linewidth=0, rasterized=True)
    r = here["r"].transpose("hidden", "initial").where(regime > 0)
    levels, column = [0.25, 0.5, 0.75, 1.0], 0.3 + readout
    lines = panel.contour(x, y, r, levels=levels, colors="black", linewidths=0.5, alpha=0.6)
    places = [(column, level + 1 - readout) for level in levels]
    panel.clabel(lines, fmt="$r = %g$", fontsize=6, manual=places)
    sample = data["sample"].to_dataset()
    found = sample["readout"].values == readout
    colors = [COLORS[REGIMES[i]] for i in sample["regime"].values[found]]
    points = {"s": 22, "edgecolor": "black", "linewidth": 0.8, "zorder": 3}
    panel.scatter(sample["initial"][found], sample["hidden"][found], color=colors, **points)
    for name, index in NAMES.items():
        if found[index]:
            panel.text(sample["initial"][index] - 0.05, sample["hidden"][index] - 0.05, name, ha="right", va="top")
    panel.set(xlabel="readout at first, $a_3 + b_3$", ylabel="hidden steps, $2 a_2 + c$")
    panel.text(0.08, -0.4, "unstable")
    if (regime == REGIMES.index("trivial")).any():
        panel.text(1.35, 0.72, "trivial")
        panel.annotate("kernel", (0.78, 0.44), (0.2, 0.3), arrowprops={"arrowstyle": "-", "linewidth": 0.6})
    else:
        panel.text(1.4, 0.6, "kernel")
        panel.text(1.3, -0.14, "feature learning", color=COLORS["feature"])


def exponent_panel(panel, data):
    sample = data["sample"].to_dataset()
    value, error = ts.study.exponents(measured(data).sel(layer="last"))
    limits = np.array([-0.15, 1.15])
    panel.plot(limits, limits, color="black", linewidth=0.8)
    equal = sample["r"].values[:, None] == sample["r"].values
    order = np.tril(equal, -1).sum(1) - (equal.sum(1) - 1) / 2
    shifted = sample["r"] + 0.025 * order  # side by side, where several have one r
    style = {"markeredgecolor": "black", "markeredgewidth": 0.5, "ecolor": "black", "markersize": 4.5, "linewidth": 0.7}
    for name in REGIMES[1:]:
        these = np.flatnonzero(sample["regime"] == REGIMES.index(name))
        panel.errorbar(shifted[these], -value[these], error[these], fmt="o", color=COLORS[name], label=name, **style)
    panel.set(title="(c) last hidden layer", xlabel="$r$, theory", ylabel="exponent of networks")
    panel.set(xlim=limits, ylim=limits)
    panel.legend(loc="upper left")


def width_panel(panel, data):
    sample, change = data["sample"].to_dataset(), measured(data).sel(layer="last")
    width = change["width"].values
    for color, (index, name) in zip(ts.study.PALETTE, SHOWN.items(), strict=False):
        r, here = sample["r"][index].item(), change.isel(sample=index)
        mean = np.sqrt((here**2).mean("repeat"))
        ts.study.power_line(panel, width, mean, -r, color=color)
        ts.study.rms_points(panel, here, color=color)
        panel.text(width[-1] * 1.2, mean[-1], f"$r = {r:g}${name}", va="center")
    panel.set(title="(d) coordinate check", ylabel="change of last hidden layer", yscale="log")
    ts.study.width_axis(panel, width, "width $n$")
    panel.set_xlim(width[0] / 1.2, width[-1] * 4)


# %%
if __name__ == "__main__":
    ts.study.set_up()
    data = simulate(PRESETS["smoke"])
    draw(data)
    print(*claims(data), sep="\n")
