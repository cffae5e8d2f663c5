"""From lazy to rich: one number, gamma0, decides whether a network of infinite width keeps its kernel or learns its
features. Mean-field theory gives both exactly, at any depth, and finite networks approach it like one over their width.
"""

# %% [markdown]
# # Feature learning at infinite width
#
# A network $f = w \cdot \phi(h^L) / (\gamma_0 N)$, $h^{l+1} = W^l \phi(h^l) / \sqrt N$, trained by gradient descent
# with learning rate $\eta \gamma_0^2 N$, has a limit of infinite width in which its neurons are independent, yet move.
# As $\gamma_0 \to 0$ they move by $O(\gamma_0)$, the kernels $\Phi^l = \langle \phi(h^l) \phi(h^l) \rangle$ by
# $O(\gamma_0^2)$, and training is that of the tangent kernel; at large $\gamma_0$ features are learnt. The limit solves
# a dynamical mean-field theory: Gaussian sources $u^l, r^l$ and deterministic responses $A^l, B^l$ drive every neuron.
#
# How much a layer learns is measured by the growth of its kernel along the targets,
# $y^\top \Phi^l(t)\, y \,/\, y^\top \Phi^l(0)\, y - 1$.

# %%
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import theorysim as ts

TITLE = "Feature learning at infinite width"
SOURCES = ("arXiv:2205.09653", "arXiv:2011.14522", "arXiv:1806.07572")


class Preset(NamedTuple):
    """Theory at `points` values of gamma0, from `batches` of `samples`; `repeats` networks of each width."""

    points: int
    samples: int
    batches: int
    widths: tuple[int, ...]
    repeats: int


PRESETS = {
    "smoke": Preset(points=5, samples=256, batches=6, widths=(32, 128), repeats=64),
    "laptop": Preset(points=21, samples=1024, batches=8, widths=(64, 128, 256, 512), repeats=64),
    "paper": Preset(points=49, samples=8192, batches=32, widths=(64, 128, 256, 512, 1024, 2048, 4096), repeats=256),
}
INPUTS = np.array([[1.0, 0.3, -0.5], [0.2, -0.9, 0.8]])
TARGETS = np.array([1.0, -0.7])
DEPTH, LEARNING_RATE, STEPS = 2, 0.3, 12
LAZY, RICH = 0.1, 4.0
GAMMA0 = (0.5, 1.0, 2.0, 4.0)  # of the networks

# %% [markdown]
# ## The limit, and networks beside it
#
# All values of $\gamma_0$ see the same noise: the theory's curves are smooth, and their bands are errors in common.


# %%
def simulate(preset):
    x, targets = jnp.asarray(INPUTS), jnp.asarray(TARGETS)
    training = {"depth": DEPTH, "learning_rate": LEARNING_RATE, "steps": STEPS}

    def limit(gamma0, batch):
        sampling = {"samples": preset.samples, "batches": 1, "key": jax.random.fold_in(jax.random.key(0), batch)}
        return observed(ts.infinite.mup.dmft(jnp.tanh, x, targets, gamma0=gamma0, **training, **sampling).value)

    def network(gamma0, width, key):
        size = {"width": width, "gamma0": gamma0}
        return observed(ts.networks.train_mup(jnp.tanh, x, targets, **size, **training, key=key))

    def observed(trajectory):
        projected = jnp.einsum("a,ltatb,b->lt", targets, trajectory.features, targets)
        growth = projected[:, -1] / projected[:, 0] - 1
        return {"loss": trajectory.loss, "outputs": trajectory.outputs, "growth": growth}

    def lazy(step):
        kernel = ts.infinite.fully_connected(ts.infinite.tanh, x, x, depth=DEPTH, weight_var=1.0, bias_var=0.0).ntk
        modes = ts.infinite.dynamics.modes(kernel)
        response = ts.infinite.dynamics.response(modes, kernel, steps=step, learning_rate=LEARNING_RATE)
        return {"loss": jnp.square(targets - response @ targets).mean() / 2}

    gamma0 = np.unique(np.r_[np.geomspace(LAZY, RICH, preset.points), GAMMA0])
    named = {
        "lanes": 8,
        "dims": {"loss": ["step"], "outputs": ["step", "example"], "growth": ["layer"]},
        "coords": {"step": np.arange(STEPS + 1), "layer": np.arange(1, DEPTH + 1)},
    }
    theory = ts.sweep(limit, ts.Grid(gamma0=gamma0, batch=np.arange(preset.batches)), **named)
    random = {"key": jax.random.key(1), "repeats": preset.repeats}
    sizes = ts.Grid(gamma0=np.array(GAMMA0), width=ts.static(*preset.widths))
    return ts.study.tree(
        theory=theory.rename(batch="repeat"),
        lazy=ts.sweep(lazy, ts.Grid(step=np.arange(STEPS + 1))),
        simulation=ts.sweep(network, sizes, **random, **named),
    )


# %% [markdown]
# ## What must agree
#
# A network of width $N$ scatters about the limit by $O(N^{-1/2})$, and its mean approaches it like $1 / N$: means are
# extrapolated. As $\gamma_0 \to 0$ the loss is that of the tangent kernel, and the next order is that of the kernels'
# own growth.


# %%
def claims(data):
    theory, networks = data["theory"].to_dataset(), data["simulation"].to_dataset()
    losses = theory["loss"].mean("step"), networks["loss"].mean("step")
    for gamma0 in GAMMA0:
        yield agreement("mean loss over the steps", *losses, gamma0=gamma0)
        for layer in theory["layer"].values:
            growths = theory["growth"].sel(layer=layer), networks["growth"].sel(layer=layer)
            yield agreement(f"relative growth of the kernel of layer {layer}", *growths, gamma0=gamma0)
    yield ts.study.exponent_agrees(
        "distance from the limit",
        f"exponent in the width of the distance of a network's outputs from the limit, gamma0 = {GAMMA0[-1]:g}",
        -0.5,
        distance(data).sel(gamma0=GAMMA0[-1]),
    )
    lazy = float(data["lazy"]["loss"].mean("step"))
    growth = float(abs(theory["growth"].sel(gamma0=LAZY)).mean("repeat").max())
    yield ts.study.agrees(
        "lazy",
        f"loss of the limit at gamma0 = {LAZY:g}, mean over steps: the tangent kernel's",
        lazy,
        ts.study.mean_estimate(losses[0].sel(gamma0=LAZY)),
        next_order=growth * lazy,
        why="the relative growth of the kernels",
    )


def agreement(what, theory, networks, gamma0):
    """Networks of infinite width, by extrapolation, against the mean of the theory's batches."""
    return ts.study.limit_agrees(
        f"{what}, gamma0 = {gamma0:g}",
        f"{what} at gamma0 = {gamma0:g}, extrapolated in 1 / width: mean-field theory's",
        ts.study.mean_estimate(theory.sel(gamma0=gamma0)),
        networks.sel(gamma0=gamma0),
    )


def distance(data):
    """Root mean square over steps and inputs of a network's distance from the limit."""
    difference = data["simulation"]["outputs"] - data["theory"]["outputs"].mean("repeat")
    return np.sqrt((difference**2).mean(("step", "example")))


# %% [markdown]
# ## Theory as lines, networks as points


# %%
def draw(data):
    panels = training_panel, loss_panel, growth_panel, width_panel
    return {"mup_limit": ts.study.drawn(data, *panels, height_to_width=0.72)}


def training_panel(panel, data):
    theory, networks = (data[node]["loss"] for node in ("theory", "simulation"))
    panel.plot(data["lazy"]["step"], data["lazy"]["loss"], color="black", linestyle="--", label="tangent kernel")
    for color, gamma0 in zip(ts.study.PALETTE, GAMMA0, strict=False):
        ts.study.mean_and_band(panel, theory.sel(gamma0=gamma0), color)
        label = rf"$\gamma_0 = {gamma0:g}$"
        ts.study.points(panel, networks.sel(gamma0=gamma0).isel(width=-1), color=color, label=label)
    width = int(networks["width"][-1])
    panel.set(title=f"(a) training; lines: infinite width, points: {width}", xlabel="step", ylabel="loss", yscale="log")
    panel.legend()


def loss_panel(panel, data):
    theory, networks = (data[node]["loss"].isel(step=-1) for node in ("theory", "simulation"))
    panel.axhline(data["lazy"]["loss"].isel(step=-1), color="black", linestyle="--", label="tangent kernel")
    ts.study.mean_and_band(panel, theory, ts.study.PALETTE[0], label="infinite width")
    ts.study.narrow_and_wide(panel, networks, ts.study.PALETTE[1], apart=1.03)
    gamma0_axis(panel)
    panel.set(title="(b) loss after training", ylabel="loss", ylim=(0, None))
    panel.legend()


def growth_panel(panel, data):
    theory, networks = (data[node]["growth"] for node in ("theory", "simulation"))
    for color, layer in zip(ts.study.PALETTE, theory["layer"].values, strict=False):
        ts.study.mean_and_band(panel, theory.sel(layer=layer), color)
        ts.study.points(panel, networks.sel(layer=layer).isel(width=-1), color=color, label=f"layer {layer}")
    lazy = theory["gamma0"].values[theory["gamma0"].values < 0.7]
    scale = theory.isel(layer=0, gamma0=0).mean("repeat").item() / lazy[0] ** 2
    panel.plot(lazy, 0.5 * scale * lazy**2, color="grey", linestyle=":", label=r"$\gamma_0^2$")
    gamma0_axis(panel)
    width = int(networks["width"][-1])
    panel.set(title=f"(c) growth of kernels; points: width {width}", ylabel="relative growth", yscale="log")
    panel.legend()


def width_panel(panel, data):
    spread = distance(data)
    width = spread["width"].values
    for color, gamma0 in zip(ts.study.PALETTE, GAMMA0, strict=False):
        ts.study.power_line(panel, width, spread.sel(gamma0=gamma0).mean("repeat"), -0.5, color=color)
        ts.study.points(panel, spread.sel(gamma0=gamma0), color=color, label=rf"$\gamma_0 = {gamma0:g}$")
    panel.set(title="(d) distance from the limit; lines: $N^{-1/2}$", ylabel="rms distance of outputs", yscale="log")
    ts.study.width_axis(panel, width)
    panel.legend()


def gamma0_axis(panel):
    panel.set(xlabel=r"feature learning $\gamma_0$", xscale="log")
    ts.study.plain_ticks(panel.xaxis, (0.1, 0.2, 0.5, 1, 2, 4))


# %%
if __name__ == "__main__":
    ts.study.set_up()
    data = simulate(PRESETS["smoke"])
    draw(data)
    print(*claims(data), sep="\n")
