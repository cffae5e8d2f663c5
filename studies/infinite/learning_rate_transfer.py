"""Does the best learning rate of a small network serve a large one? On digits it does under muP, for gradient descent
and for Adam. In standard parametrisation it falls with the width; for gradient descent as fast as the tangent kernel
says.
"""

# %% [markdown]
# # Learning-rate transfer
#
# muTransfer scales the initial weights, the multipliers and the learning rates of a network of width $n$, $m$ times
# wider than a base, by powers of $m$, role by role. Standard parametrisation scales the initial weights alone: every
# width is its own base.
#
# Gradient descent is stable below the learning rate $2 / \lambda$, with $\lambda$ the largest eigenvalue of the tangent
# kernel at initialisation over the number of images and outputs. For two hidden layers in standard parametrisation
# $$\Theta = n\,(S_2 + T'_2 S_1) + 1 + T'_2 + T'_1 T'_2\,(x^\top x' + 1),$$
# with $S_l$ the covariance of the activations and $T'_l$ that of their derivatives. Under muP, $n$ is that of the base.
#
# The sensitivity to the learning rate is the mean of $\min(\text{loss}, \text{initial loss}) - \text{best loss}$ over
# three decades (arXiv:2309.14322).

# %%
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import xarray as xr

import theorysim as ts

TITLE = "Learning-rate transfer"
SOURCES = ("arXiv:2203.03466", "arXiv:2309.14322", "arXiv:2011.14522")


class Preset(NamedTuple):
    """Widths from the base up; learning rates over three decades; networks at each; steps of training."""

    widths: tuple[int, ...]
    rates: int
    repeats: int
    steps: int


PRESETS = {
    "smoke": Preset((48, 192), rates=10, repeats=6, steps=25),
    "laptop": Preset((64, 128, 256), rates=16, repeats=6, steps=50),
    "paper": Preset((64, 128, 256, 512, 1024, 2048), rates=37, repeats=16, steps=400),
}
IMAGES, BATCH = 256, 32
LOWEST = {"sgd": 0.02, "adam": 3e-4}  # of three decades of learning rates
NAMES = {True: "muP", False: "standard"}
LABELS = {"sgd": "gradient descent", "adam": "Adam"}
OPTIMIZERS = {"sgd": ts.networks.transfer.transfer_sgd, "adam": ts.networks.transfer.transfer_adam}


# %% [markdown]
# ## The edge of stability, and networks beside it


# %%
def simulate(preset):
    data = ts.study.digits(IMAGES, scale="set")
    images, targets = data.images, (np.eye(10)[data.labels] - 0.1) / 0.3  # of mean 0 and mean square 1
    single = jnp.asarray(images, "float32"), jnp.asarray(targets, "float32")
    (_, dim), (_, outputs) = images.shape, targets.shape
    base_width = float(preset.widths[0])
    decades = np.linspace(0, 3, preset.rates)
    # Each network has learning rates of its own: what lies between two of them shows as scatter.
    shifts = np.random.default_rng(0).uniform(0, decades[1], preset.repeats)
    batches = np.random.default_rng(1).integers(0, IMAGES, (preset.steps, BATCH))

    def theory(width):
        standard = {"parametrisation": "standard", "width": width, "biases": True}
        kernel = ts.infinite.fully_connected(ts.infinite.erf, jnp.asarray(images), depth=2, **standard).ntk
        return {"edge": outputs * ts.infinite.dynamics.largest_learning_rate(ts.infinite.dynamics.modes(kernel))}

    def network(optimizer, width, decade, mup, seed):
        base = jnp.where(mup, base_width, width)
        size = {"width": width, "base_width": base, "depth": 2, "dim": dim, "outputs": outputs}
        network = ts.networks.transfer.transfer_network(activation=ts.infinite.erf, **size)
        # One program for both: which of them is a traced number.
        scale = 10 ** (decade + jnp.asarray(shifts)[seed])
        rates = [(lowest * scale).astype("float32") for lowest in LOWEST.values()]
        optimizers = [make(rate, width / base) for make, rate in zip(OPTIMIZERS.values(), rates, strict=True)]
        params = network.init(jax.random.fold_in(jax.random.key(0), seed), single[0])

        def loss(params, images, targets):
            return jnp.square(network.apply(params, images) - targets).mean() / 2

        def step(state, batch):
            params, memories = state
            gradient = jax.grad(loss)(params, *(part[batch] for part in single))
            found = [each.update(gradient, memory, params) for each, memory in zip(optimizers, memories, strict=True)]
            (sgd, adam), memories = zip(*found, strict=True)
            change = jax.tree.map(lambda first, second: jnp.where(optimizer == 0, first, second), sgd, adam)
            return (optax.apply_updates(params, change), memories), None

        start = (params, tuple(each.init(params) for each in optimizers))
        (trained, _), _ = jax.lax.scan(step, start, batches)
        return {"loss": loss(trained, *single), "initial": loss(params, *single)}

    networks = ts.sweep(
        network,
        ts.Grid(
            optimizer=np.arange(len(OPTIMIZERS)),
            width=ts.static(*preset.widths),
            decade=decades,
            mup=np.array([True, False]),
            seed=np.arange(preset.repeats),  # one draw for all learning rates
        ),
        # A CPU multiplies the matrices of one network faster than a batch of them.
        lanes=1 if jax.default_backend() == "cpu" else None,
    )
    names = {"optimizer": list(OPTIMIZERS), "shift": ("repeat", shifts)}
    return ts.study.tree(
        theory=ts.sweep(theory, ts.Grid(width=np.array(preset.widths, float)), lanes=1),
        simulation=networks.rename(seed="repeat").assign_coords(names),
    )


# %% [markdown]
# ## What must agree
#
# The best learning rate of a network is the lowest point of a parabola through the logarithm of the loss at the best
# of its rates and their neighbours.


# %%
def claims(data):
    rates = best(data)
    widths = rates["width"].values
    for optimizer, mup in (("sgd", True), ("adam", True), ("sgd", False)):
        first, last = edge(data, mup).values[[0, -1]]
        yield ts.study.exponent_agrees(
            f"{LABELS[optimizer]}, {NAMES[mup]}",
            f"{LABELS[optimizer]}, {NAMES[mup]}: exponent of the best learning rate in the width"
            + ", as of the edge of stability" * (not mup),
            np.log(last / first) / np.log(widths[-1] / widths[0]),
            rates.sel(optimizer=optimizer, mup=mup),
        )
    usual, transferred = (
        ts.study.exponent(widths, rates.sel(optimizer="adam", mup=mup).transpose("width", "repeat").values)
        for mup in (False, True)
    )
    error = float(np.hypot(usual.standard_error, transferred.standard_error))
    yield ts.study.stays_below(
        "Adam, standard",
        "Adam: exponent of the best learning rate in the width, in standard parametrisation below that of muP",
        float(transferred.value),
        ts.study.Estimate(float(usual.value), error),
    )


def edge(data, mup):
    """Of stability: under muP, that of the base at every width."""
    edges = data["theory"]["edge"]
    return xr.full_like(edges, edges[0].item()) if mup else edges


def clipped(data):
    """Where training diverged, the initial loss."""
    simulation = data["simulation"].to_dataset()
    return np.fmin(simulation["loss"], simulation["initial"])


def best(data):
    """The best learning rate of each network."""
    loss = np.log(clipped(data).transpose("decade", ...))
    lowest = loss.argmin("decade").clip(1, loss.sizes["decade"] - 2)
    left, middle, right = (loss.isel(decade=lowest + i, drop=True) for i in (-1, 0, 1))
    step = float(loss["decade"][1] - loss["decade"][0])
    offset = (left - right) / (left + right - 2 * middle) / 2
    lowest_rate = xr.DataArray([LOWEST[name] for name in loss["optimizer"].values], dims="optimizer")
    return lowest_rate * 10 ** (loss["shift"] + step * (lowest + offset.clip(-1, 1)))


def sensitivity(data):
    """Mean over learning rates of how much worse than the best a network is (arXiv:2309.14322)."""
    loss = clipped(data)
    return loss.mean("decade") - loss.min("decade")


# %% [markdown]
# ## Loss against learning rate, and the best one against width


# %%
def draw(data):
    figure, axes = plt.subplots(2, 3, figsize=ts.study.page(2, 3, 0.98))
    for row, optimizer in zip(axes, LABELS, strict=True):
        row[1].sharey(row[0])
        for panel, mup in zip(row, (False, True), strict=False):
            loss_panel(panel, data, optimizer, mup)
        best_panel(row[2], data, optimizer)
    for panel, letter in zip(axes.flat, "abcdef", strict=True):
        panel.set_title(f"({letter}) {panel.get_title(loc='left')}")
    axes[0, 1].legend(title="width", loc="lower left")
    return {"learning_rate_transfer": figure, "sensitivity": sensitivity_figure(data)}


def loss_panel(panel, data, optimizer, mup):
    loss = clipped(data).sel(optimizer=optimizer, mup=mup)
    rates = LOWEST[optimizer] * 10 ** (loss["decade"] + loss["shift"])
    for color, width in zip(shades(loss.sizes["width"]), loss["width"].values, strict=True):
        networks = loss.sel(width=width).transpose(*rates.dims)
        panel.plot(rates.values.ravel(), networks.values.ravel(), "o", color=color, markersize=1.5, label=f"{width}")
        if optimizer == "sgd":
            panel.axvline(edge(data, mup).sel(width=width), color=color, linestyle=":", linewidth=1)
    panel.set(title=f"{LABELS[optimizer]}, {NAMES[mup]}", xlabel="learning rate", ylabel="loss")
    panel.set(xscale="log", yscale="log")
    ts.study.plain_ticks(panel.yaxis, (0.02, 0.05, 0.1, 0.2, 0.5))


def best_panel(panel, data, optimizer):
    width = data["simulation"]["width"].values
    for color, mup in zip(ts.study.PALETTE, NAMES, strict=False):
        rates = best(data).sel(optimizer=optimizer, mup=mup)
        line = edge(data, mup).values if optimizer == "sgd" else width ** (0.0 if mup else -1.0)
        panel.plot(width, np.exp(np.log(rates.mean("repeat") / line).mean().item()) * line, color=color)
        ts.study.points(panel, rates, color=color, label=NAMES[mup])
    theory = "edge of stability" if optimizer == "sgd" else "$n^0$ and $1 / n$"
    panel.set(title=f"line: {theory}", ylabel="best learning rate", yscale="log")
    ts.study.plain_ticks(panel.yaxis, {"sgd": (0.5, 1, 2), "adam": (0.005, 0.01, 0.02)}[optimizer])
    ts.study.width_axis(panel, width, "width $n$")
    panel.legend(loc="lower left")


def sensitivity_figure(data):
    figure, panel = plt.subplots(figsize=ts.study.page(1, 2))
    for color, optimizer in zip(ts.study.PALETTE, LABELS, strict=False):
        for mup, face in ((True, color), (False, "white")):
            style = {"fmt": "o-", "color": color, "markerfacecolor": face, "linewidth": 0.8}
            label = f"{LABELS[optimizer]}, {NAMES[mup]}"
            ts.study.points(panel, sensitivity(data).sel(optimizer=optimizer, mup=mup), label=label, **style)
    panel.set(ylabel="sensitivity to the learning rate", ylim=(0, None))
    ts.study.width_axis(panel, data["simulation"]["width"].values, "width $n$")
    panel.legend(ncols=2, loc="lower left")
    return figure


def shades(count):
    return [plt.get_cmap("viridis")(x) for x in np.linspace(0, 0.85, count)]


# %%
if __name__ == "__main__":
    ts.study.set_up()
    data = simulate(PRESETS["smoke"])
    draw(data)
    print(*claims(data), sep="\n")
