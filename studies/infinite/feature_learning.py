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
# but IP, where it falls like $n^{-2}$: training adds a few directions, and leaves the others. The matrix is that of
# four images, far fewer than any network has neurons.

# %%
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import theorysim as ts

TITLE = "Features that move and stay apart"
SOURCES = ("arXiv:2503.09565", "arXiv:2011.14522", "arXiv:2110.15596")


class Preset(NamedTuple):
    """Widths of the networks, and how many of each."""

    widths: tuple[int, ...]
    repeats: int


PRESETS = {
    "smoke": Preset((64, 256), repeats=24),
    "laptop": Preset((64, 128, 256, 512), repeats=40),
    "paper": Preset((64, 128, 256, 512, 1024, 2048), repeats=64),
}
DEPTH, IMAGES, COMPARED, STEPS, LEARNING_RATE = 3, 32, 4, 20, 0.3
NAMES = ("SP", "NTP", "IP", "muP")


def parametrisations():
    """All four, stacked."""
    abc = ts.infinite.abc
    four = (abc.standard(DEPTH, c=1.0), abc.ntk(DEPTH), abc.integrable(DEPTH), abc.mup(DEPTH))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *four)


# %% [markdown]
# ## Exponents, and networks


# %%
def simulate(preset):
    digits, four = ts.study.digits(IMAGES, scale="image"), parametrisations()
    inputs = jnp.asarray(digits.images / 8)  # of norm 1
    images, targets = inputs.astype("float32"), jnp.asarray(digits.parity[:, None], "float32")

    def theory(parametrisation):
        point = jax.tree.map(lambda leaf: leaf[parametrisation], four)
        change = -ts.infinite.abc.changes(point, first_step=True).hidden[0]
        shrinking = 0.5 - ts.infinite.abc.invariants(point).initial[1:-1]
        return {"change": change, "least": 2 * shrinking.sum()}

    def network(width, key):
        def trained(point):
            network = ts.networks.abc.abc_network(point, width=width, activation=ts.infinite.erf)

            def observe(params):
                return network.apply(params, images, method="preactivations")

            def loss(params, _):
                return jnp.square(observe(params)[-1] - targets).mean() / 2

            rate = (LEARNING_RATE * width**-point.c).astype("float32")
            params = network.init(key, images)
            first, *_, last, output = ts.networks.train(loss, params, optax.sgd(rate), jnp.array([0, STEPS]), observe)
            features = ts.infinite.erf(last[:, :COMPARED]).astype(float)
            return {
                "change": jnp.linalg.norm(first[1] - first[0]) / jnp.linalg.norm(first[0]),
                "least": jnp.linalg.eigvalsh(features @ features.mT / width)[:, 0],
                "loss": jnp.square(output - targets).mean((1, 2)) / 2,
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
            "least": ["parametrisation", "step"],
            "loss": ["parametrisation", "step"],
        },
        coords={"step": [0, STEPS]},
    )
    names = {"parametrisation": list(NAMES)}
    network_at_start = {"depth": DEPTH, "weight_var": jnp.array([64.0, 1, 1, 1]), "bias_var": 0.0}
    kernel = ts.infinite.fully_connected(ts.infinite.erf, inputs[:COMPARED], **network_at_start).nngp
    return ts.study.tree(
        theory=exponents.assign_coords(names).assign(nngp=jnp.linalg.eigvalsh(kernel)[0]),
        simulation=networks.assign_coords(names),
    )


# %% [markdown]
# ## What must agree


# %%
def claims(data):
    theory, networks = data["theory"].to_dataset(), data["simulation"].to_dataset()
    for name in NAMES:
        here = {"parametrisation": name}
        yield ts.study.exponent_agrees(
            f"{name}: movement",
            f"{name}: exponent in the width of the first layer's relative change in {STEPS} steps",
            0 + theory["change"].sel(here).item(),
            networks["change"].sel(here),
        )
    start = networks["least"].sel(parametrisation="muP").isel(step=0)
    for name in ("IP", "muP"):
        here = {"parametrisation": name}
        yield ts.study.exponent_agrees(
            f"{name}: diversity",
            f"{name}: exponent in the width of the least eigenvalue of the last features' Gram matrix after training, "
            "relative to muP's before",
            0 + theory["least"].sel(here).item(),
            networks["least"].sel(here).isel(step=-1) / start,
        )


# %% [markdown]
# ## Movement, diversity, and what was learnt


# %%
def draw(data):
    figure, panels = plt.subplots(1, 3, figsize=ts.study.page(1, 3, 1.05))
    theory, networks = data["theory"].to_dataset(), data["simulation"].to_dataset()
    change, least, loss = panels
    for name, color, marker in zip(NAMES, ts.study.PALETTE, "osD^", strict=False):
        here = {"parametrisation": name}
        style = {"fmt": marker, "color": color, "linewidth": 0.8}
        power_law(change, networks["change"].sel(here), theory["change"].sel(here), style)
        power_law(least, networks["least"].sel(here).isel(step=-1), theory["least"].sel(here), style)
        style["fmt"] += "-"
        ts.study.points(loss, networks["loss"].sel(here).isel(step=-1), label=name, **style)
    least.axhline(theory["nngp"], color="black", linewidth=0.8)
    least.text(networks["width"][0], 1.3 * theory["nngp"], "NNGP")
    change.set(title="(a) movement of first layer", ylabel="relative change")
    least.set(title="(b) diversity of last layer", ylabel="least eigenvalue")
    loss.set(title=f"(c) after {STEPS} steps", ylabel="loss")
    for panel in panels:
        panel.set_yscale("log")
        ts.study.width_axis(panel, networks["width"].values, "width $n$")
    least.set_ylim(top=0.5)
    ts.study.plain_ticks(loss.yaxis, (0.03, 0.1, 0.3))
    figure.legend(*loss.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return {"feature_learning": figure}


def power_law(panel, samples, power, style):
    """Points, and theory's exponent through the last of them."""
    width = samples["width"].values
    last = samples.isel(width=-1).mean().item()
    panel.plot(width, last * (width / width[-1]) ** power.item(), color=style["color"])
    ts.study.points(panel, samples, **style)


# %%
if __name__ == "__main__":
    ts.study.set_up()
    data = simulate(PRESETS["smoke"])
    draw(data)
    print(*claims(data), sep="\n")
