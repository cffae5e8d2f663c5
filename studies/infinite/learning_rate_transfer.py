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
from sklearn.datasets import load_digits

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
    "smoke": Preset((32, 128), rates=10, repeats=4, steps=25),
    "laptop": Preset((64, 128, 256), rates=13, repeats=4, steps=50),
    "paper": Preset((64, 128, 256, 512, 1024, 2048), rates=37, repeats=16, steps=400),
}
IMAGES, BATCH = 256, 32
LOWEST = {"sgd": 0.02, "adam": 3e-4}  # of three decades of learning rates
NAMES = {True: "muP", False: "standard"}
LABELS = {"sgd": "gradient descent", "adam": "Adam"}
OPTIMIZERS = {"sgd": ts.networks.abc.transfer_sgd, "adam": ts.networks.abc.transfer_adam}


class Digits(NamedTuple):
    """Images of 8 x 8 pixels, standardised; targets one-hot, of mean 0 and mean square 1."""

    images: jax.Array
    targets: jax.Array


def digits():
    images, labels = load_digits(return_X_y=True)
    images = ((images - images.mean(0)) / images.std())[:IMAGES]
    targets = (np.eye(10)[labels[:IMAGES]] - 0.1) / 0.3
    return Digits(jnp.asarray(images, "float32"), jnp.asarray(targets, "float32"))


# %% [markdown]
# ## The edge of stability, and networks beside it


# %%
def simulate(preset):
    data = digits()
    inputs, outputs = data.images.shape[1], data.targets.shape[1]
    base_width = float(preset.widths[0])
    decades = np.linspace(0, 3, preset.rates)
    batches = jax.random.randint(jax.random.key(1), (preset.steps, BATCH), 0, IMAGES)

    images = data.images.astype(float)

    def theory(mup, width):
        standard = {"parametrisation": "standard", "width": jnp.where(mup, base_width, width), "biases": True}
        kernel = ts.infinite.fully_connected(ts.infinite.erf, images, depth=2, **standard).ntk
        largest = ts.infinite.dynamics.largest_learning_rate(ts.infinite.dynamics.modes(kernel))
        return {"edge": outputs * largest}

    def network(optimizer, width, decade, mup, seed):
        base = jnp.where(mup, base_width, width)
        size = {"width": width, "base_width": base, "depth": 2, "inputs": inputs, "outputs": outputs}
        network = ts.networks.abc.transfer_network(activation=ts.infinite.erf, **size)
        rate = (LOWEST[optimizer] * 10**decade).astype("float32")
        update = OPTIMIZERS[optimizer](rate, width / base)
        params = network.init(jax.random.fold_in(jax.random.key(0), seed), data.images)

        def loss(params, images, targets):
            return jnp.square(network.apply(params, images) - targets).mean() / 2

        def step(state, batch):
            params, memory = state
            gradient = jax.grad(loss)(params, data.images[batch], data.targets[batch])
            change, memory = update.update(gradient, memory, params)
            return (optax.apply_updates(params, change), memory), None

        start = (params, update.init(params))
        (trained, _), _ = jax.lax.scan(step, start, batches)
        return {"loss": loss(trained, *data), "initial": loss(params, *data)}

    networks = ts.sweep(
        network,
        ts.Grid(
            optimizer=ts.static(*OPTIMIZERS),
            width=ts.static(*preset.widths),
            decade=decades,
            mup=np.array([True, False]),
            seed=np.arange(preset.repeats),  # one draw for all learning rates
        ),
        # A CPU multiplies the matrices of one network faster than a batch of them.
        lanes=1 if jax.default_backend() == "cpu" else None,
    )
    widths = np.array(preset.widths, float)
    return xr.DataTree.from_dict(
        {
            "theory": ts.sweep(theory, ts.Grid(mup=np.array([True, False]), width=widths)),
            "simulation": networks.rename(seed="repeat"),
        }
    )


# %% [markdown]
# ## What must agree
#
# The best learning rate of a network is the lowest point of a parabola through the logarithm of the loss at the best
# rate and its neighbours. Where the loss jumps at the edge of stability, that is good to a quarter of their distance.


# %%
def claims(data):
    edge = np.log(data["theory"]["edge"])
    octaves = np.log(edge["width"][-1] / edge["width"][0])
    decades = data["simulation"]["decade"]
    resolution = float((decades[1] - decades[0]) * np.log(10) / octaves) / 4
    for optimizer, mup in (("sgd", True), ("adam", True), ("sgd", False)):
        fit = drift(best(data).sel(optimizer=optimizer, mup=mup))
        theory = "" if mup else ", as of the edge of stability"
        yield ts.study.Claim(
            f"{LABELS[optimizer]}, {NAMES[mup]}: exponent of the best learning rate in the width{theory}",
            predicted=0 if mup else float((edge.sel(mup=mup)[-1] - edge.sel(mup=mup)[0]) / octaves),
            measured=fit.value,
            tolerance=3 * fit.standard_error + resolution,
            why="three standard errors over networks, and a quarter of the distance between two learning rates",
        )
    usual, transferred = (drift(best(data).sel(optimizer="adam", mup=mup)) for mup in (False, True))
    noise = np.hypot(usual.standard_error, transferred.standard_error)
    yield ts.study.Claim(
        "Adam: what the exponent in standard parametrisation lacks to be below that of muP by three standard errors",
        predicted=0,
        measured=max(0.0, usual.value - transferred.value + 3 * noise),
        tolerance=0,
        why="a sign: steps of hidden layers add up over the width",
    )


def drift(best):
    return ts.study.exponent(best["width"].values, best.transpose("width", "repeat").values)


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
    return lowest_rate * 10 ** (step * (lowest + offset.clip(-1, 1)))


def sensitivity(data):
    """Mean over learning rates of how much worse than the best a network is (arXiv:2309.14322)."""
    loss = clipped(data)
    return loss.mean("decade") - loss.min("decade")


# %% [markdown]
# ## Loss against learning rate, and the best one against width


# %%
def draw(data):
    figure, axes = plt.subplots(2, 3, figsize=ts.study.page(2, 3, 0.98))
    for row, optimizer in zip(axes, data["simulation"]["optimizer"].values, strict=True):
        for panel, mup in zip(row, (False, True), strict=False):
            loss_panel(panel, data, optimizer, mup)
        top = max(panel.get_ylim()[1] for panel in row[:2])
        bottom = min(panel.get_ylim()[0] for panel in row[:2])
        for panel in row[:2]:
            panel.set_ylim(bottom, top)
        best_panel(row[2], data, optimizer)
    for panel, letter in zip(axes.flat, "abcdef", strict=True):
        panel.set_title(f"({letter}) {panel.get_title(loc='left')}")
    axes[0, 1].legend(title="width", loc="lower left")
    return {"learning_rate_transfer": figure, "sensitivity": sensitivity_figure(data)}


def loss_panel(panel, data, optimizer, mup):
    loss = clipped(data).sel(optimizer=optimizer, mup=mup)
    rates = LOWEST[optimizer] * 10 ** loss["decade"].values
    for color, width in zip(shades(loss.sizes["width"]), loss["width"].values, strict=True):
        mean, error = ts.study.mean_and_error(loss.sel(width=width))
        style = {"fmt": "o-", "color": color, "linewidth": 0.8, "markersize": 2.5}
        panel.errorbar(rates, mean, error, label=f"{width}", **style)
        if optimizer == "sgd":
            panel.axvline(data["theory"]["edge"].sel(mup=mup, width=width), color=color, linestyle=":", linewidth=1)
    panel.set(title=f"{LABELS[optimizer]}, {NAMES[mup]}", xlabel="learning rate", ylabel="loss")
    panel.set(xscale="log", yscale="log")


def best_panel(panel, data, optimizer):
    width = data["simulation"]["width"].values
    for color, mup in zip(ts.study.PALETTE, NAMES, strict=False):
        mean, error = ts.study.mean_and_error(best(data).sel(optimizer=optimizer, mup=mup))
        edge = data["theory"]["edge"].sel(mup=mup).values if optimizer == "sgd" else width ** (0.0 if mup else -1.0)
        panel.plot(width, np.exp(np.log(mean.values / edge).mean()) * edge, color=color)
        panel.errorbar(width, mean, error, fmt="o", color=color, label=NAMES[mup])
    theory = "edge of stability" if optimizer == "sgd" else "$n^0$ and $1 / n$"
    panel.set(title=f"line: {theory}", xlabel="width $n$", ylabel="best learning rate", yscale="log")
    panel.set_xscale("log", base=2)
    panel.set_xticks(width, [f"{w}" for w in width])
    panel.legend(loc="lower left")


def sensitivity_figure(data):
    figure, panel = plt.subplots(figsize=ts.study.page(1, 2))
    width = data["simulation"]["width"].values
    for color, optimizer in zip(ts.study.PALETTE, LABELS, strict=False):
        for mup, face in ((True, color), (False, "white")):
            mean, error = ts.study.mean_and_error(sensitivity(data).sel(optimizer=optimizer, mup=mup))
            style = {"color": color, "markerfacecolor": face, "linewidth": 0.8}
            panel.errorbar(width, mean, error, fmt="o-", label=f"{LABELS[optimizer]}, {NAMES[mup]}", **style)
    panel.set(xlabel="width", ylabel="sensitivity to the learning rate", ylim=(0, None))
    panel.set_xscale("log", base=2)
    panel.set_xticks(width, [f"{w}" for w in width])
    panel.legend(ncols=2, loc="lower left")
    return figure


def shades(count):
    return [plt.get_cmap("viridis")(x) for x in np.linspace(0, 0.85, count)]


# %%
if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    plt.rcParams.update(ts.study.style())
    data = simulate(PRESETS["smoke"])
    draw(data)
