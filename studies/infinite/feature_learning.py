"""Do wide networks move their features, and keep them apart? On digits, odd or even: in standard and NTK
parametrisation they hardly move, in the integrable one they collapse, and under muP they do both at any width.
"""

# %% [markdown]
# # Features that move and stay apart
#
# Networks of three hidden layers are trained by gradient descent in four parametrisations. After a few steps the first
# layer has changed by $n^{-3/2}$ in the standard one (SP, at the learning rate $1 / n$ that keeps it stable), by
# $n^{-1/2}$ in NTK parametrisation (NTP), and by $n^0$ under muP. The integrable parametrisation (IP) has $1 / n$ in
# front of every inner sum: its signals shrink by $n^{-1/2}$ a layer on the way up and on the way down, so that the
# first layer hardly starts to move, by $n^{-1}$, and the last one sees inputs only in a few directions it learns.
#
# How far apart the features of the inputs are is the least eigenvalue of their Gram matrix
# $G_{ij} = \phi(h_i) \cdot \phi(h_j) / n$. At initialisation in infinite width it is that of the NNGP kernel, for all
# but IP.

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

TITLE = "Features that move and stay apart"
SOURCES = ("arXiv:2503.09565", "arXiv:2011.14522", "arXiv:2110.15596")


class Preset(NamedTuple):
    """Widths of the networks, each twice the one before, and how many of each."""

    widths: tuple[int, ...]
    repeats: int


PRESETS = {
    "smoke": Preset((64, 128, 256), repeats=8),
    "laptop": Preset((64, 128, 256, 512), repeats=16),
    "paper": Preset((64, 128, 256, 512, 1024, 2048), repeats=64),
}
DEPTH, IMAGES, STEPS, LEARNING_RATE = 3, 32, 20, 0.3
NAMES = ("SP", "NTP", "IP", "muP")


class Digits(NamedTuple):
    """Images of 8 x 8 pixels as unit vectors; the target is +1 for even digits, -1 for odd ones."""

    images: jax.Array
    targets: jax.Array


def digits():
    images, labels = load_digits(return_X_y=True)
    images = (images - images.mean(0))[:IMAGES]
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    targets = 1.0 - 2 * (labels[:IMAGES, None] % 2)
    return Digits(jnp.asarray(images, "float32"), jnp.asarray(targets, "float32"))


def parametrisations():
    """All four, stacked."""
    abc = ts.infinite.abc
    four = (abc.standard(DEPTH, c=1.0), abc.ntk(DEPTH), abc.integrable(DEPTH), abc.mup(DEPTH))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *four)


# %% [markdown]
# ## Exponents, and networks


# %%
def simulate(preset):
    data, four = digits(), parametrisations()

    def theory(parametrisation):
        point = jax.tree.map(lambda leaf: leaf[parametrisation], four)
        inner = ts.infinite.abc.invariants(point).initial[1:-1]
        # Signals that vanish on their way down to the first layer, n^(1/2 - a - b) a layer; 0 but for IP.
        lost = (inner - 0.5).sum()
        return {"exponent": ts.infinite.abc.changes(point, first_step=True).hidden[0] + lost}

    def network(width, key):
        def trained(point):
            network = ts.networks.abc.abc_network(point, width=width, activation=ts.infinite.erf)

            def observe(params):
                return network.apply(params, data.images, method="preactivations")

            def loss(params):
                return jnp.square(observe(params)[-1] - data.targets).mean() / 2

            rate = (LEARNING_RATE * width**-point.c).astype("float32")
            params = network.init(key, data.images)
            first, *_, last, output = ts.networks.train(loss, params, optax.sgd(rate), jnp.array([0, STEPS]), observe)
            features = ts.infinite.erf(last).astype(float)
            return {
                "change": jnp.linalg.norm(first[1] - first[0]) / jnp.linalg.norm(first[0]),
                "gram": features @ features.mT / width,
                "loss": jnp.square(output - data.targets).mean((1, 2)) / 2,
            }

        return jax.vmap(trained)(four)  # all from the same draw

    exponents = ts.sweep(theory, ts.Grid(parametrisation=np.arange(len(NAMES))))
    networks = ts.sweep(
        network,
        ts.Grid(width=ts.static(*preset.widths)),
        key=jax.random.key(0),
        repeats=preset.repeats,
        dims={
            "change": ["parametrisation"],
            "gram": ["parametrisation", "step", "image", "other"],
            "loss": ["parametrisation", "step"],
        },
        coords={"step": [0, STEPS]},
    )
    names = {"parametrisation": list(NAMES)}
    return xr.DataTree.from_dict(
        {
            "theory": exponents.assign_coords(names).assign(kernel=(("image", "other"), kernel(data.images))),
            "simulation": networks.assign_coords(names),
        }
    )


@jax.jit
def kernel(images):
    """Covariance of the last features at initialisation, at infinite width."""
    inputs = jnp.sqrt(images.shape[1]) * images.astype(float)
    network = {"depth": DEPTH, "weight_var": 1.0, "bias_var": 0.0}
    return ts.infinite.fully_connected(ts.infinite.erf, inputs, inputs, **network).nngp


# %% [markdown]
# ## What must agree
#
# Exponents are those of the widths but the smallest. Corrections of order $1 / n$ are about as large as the difference
# that the smallest makes.


# %%
def claims(data):
    for name in NAMES:
        yield exponent_claim(
            f"{name}: exponent of the first layer's change in the width",
            -float(data["theory"]["exponent"].sel(parametrisation=name)),
            data["simulation"]["change"].sel(parametrisation=name),
        )
    least = diversity(data)
    late = least.sel(parametrisation="muP").isel(step=-1)
    yield exponent_claim(
        "muP: exponent of the least eigenvalue of the last features' Gram matrix, after over before training",
        0,
        late / least.sel(parametrisation="muP").isel(step=0),
    )
    mean, width = least.isel(width=-1, step=-1).mean("repeat"), int(least["width"][-1])
    yield ts.study.Claim(
        f"IP: least eigenvalue over that of muP, after training at width {width}",
        predicted=0,
        measured=float(mean.sel(parametrisation="IP") / mean.sel(parametrisation="muP")),
        tolerance=1 / width,
        why="1 / width: apart from a few learnt directions the last features are 1 / width, their Gram its square",
    )


def exponent_claim(sentence, predicted, samples):
    widths, samples = samples["width"].values, samples.transpose("width", "repeat").values
    every, large = ts.study.exponent(widths, samples), ts.study.exponent(widths[1:], samples[1:])
    return ts.study.Claim(
        sentence,
        predicted=predicted,
        measured=large.value,
        tolerance=3 * large.standard_error + abs(large.value - every.value),
        why="three standard errors over networks, and what the smallest width changes",
    )


def diversity(data):
    """Least eigenvalue of the Gram matrix of the last features."""
    gram = data["simulation"]["gram"]
    return gram.isel(image=0, other=0, drop=True).copy(data=np.linalg.eigvalsh(gram.values)[..., 0])


# %% [markdown]
# ## Movement, diversity, and what was learnt


# %%
def draw(data):
    figure, (change, apart, loss) = plt.subplots(1, 3, figsize=ts.study.page(1, 3, 1.05))
    simulation = data["simulation"].to_dataset()
    width = simulation["width"].values
    least = diversity(data)
    for name, color, marker in zip(NAMES, ts.study.PALETTE, "osD^", strict=False):
        style = {"fmt": marker, "color": color, "linewidth": 0.8}
        here = {"parametrisation": name}
        mean, error = ts.study.mean_and_error(simulation["change"].sel(here))
        power = float(data["theory"]["exponent"].sel(here))
        change.plot(width, mean.values[-1] * (width / width[-1]) ** -power, color=color)
        change.errorbar(width, mean, error, **style)
        style["fmt"] += "-"
        mean, error = ts.study.mean_and_error(least.sel(here).isel(step=-1))
        apart.errorbar(width, mean, error, **style)
        mean, error = ts.study.mean_and_error(simulation["loss"].sel(here).isel(step=-1))
        loss.errorbar(width, mean, error, label=name, **style)
    kernel = data["theory"]["kernel"].values
    apart.axhline(np.linalg.eigvalsh(kernel)[0], color="black", linewidth=0.8)
    apart.annotate("NNGP", (width[0], np.linalg.eigvalsh(kernel)[0]), (0, -3), textcoords="offset points", va="top")
    change.set(title="(a) movement of first layer", ylabel="relative change")
    apart.set(title="(b) diversity of last layer", ylabel="least eigenvalue")
    loss.set(title=f"(c) after {STEPS} steps", ylabel="loss")
    for panel in (change, apart, loss):
        panel.set(xlabel="width $n$", yscale="log")
        panel.set_xscale("log", base=2)
        panel.set_xticks(width, [f"{w}" for w in width])
    figure.legend(*loss.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return {"feature_learning": figure}


# %%
if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    plt.rcParams.update(ts.study.style())
    data = simulate(PRESETS["smoke"])
    draw(data)
