"""Wide networks learn like their tangent kernel: digits, odd or even, by full-batch gradient descent. The closed form
gives the mean and the spread of the outputs at any time; networks approach it like one over the root of their width.
"""

# %% [markdown]
# # Training dynamics of wide networks
#
# In NTK parametrisation a network of infinite width is linear in its parameters. Under gradient descent
# $f_t(x) = f_0(x) + M_t(x)\,(y - f_0(X))$ with $M_t(x) = \Theta(x, X)\,\Theta^{-1} (1 - (1 - \eta \Theta / n)^t)$. Over
# initialisations $f_0$ is a Gaussian process of covariance $K$, so that $f_t$ has mean $M_t y$ and variance
# $K(x, x) + M_t K M_t^\top - 2 M_t K(X, x)$.
#
# A network of width $N$ leaves this line for two reasons: its kernel at initialisation is not $\Theta$ but scatters
# about it like $N^{-1/2}$, and its kernel moves during training by $1 / N$. Both are measured here.

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

TITLE = "Training dynamics of wide networks"
SOURCES = ("arXiv:1806.07572", "arXiv:1902.06720")


class Preset(NamedTuple):
    """Widths of the networks, how many of each, and how long they train."""

    widths: tuple[int, ...]
    repeats: int
    steps: int


PRESETS = {
    "smoke": Preset((32, 64, 128), repeats=16, steps=64),
    "laptop": Preset((64, 128, 256, 512), repeats=64, steps=128),
    "paper": Preset((64, 128, 256, 512, 1024, 2048, 4096), repeats=128, steps=1024),
}
TRAIN, TEST = 64, 32
NETWORK = {"depth": 2, "activation": ts.infinite.erf, "weight_var": 2.0, "bias_var": 0.1}


class Digits(NamedTuple):
    """Images of 8 x 8 pixels, standardised; the target is +1 for even digits, -1 for odd ones."""

    images: jax.Array
    targets: jax.Array


def digits(count):
    images, labels = load_digits(return_X_y=True)
    images = (images - images.mean(0)) / images.std()
    return Digits(jnp.asarray(images[:count]), jnp.asarray(1.0 - 2 * (labels[:count] % 2)))


# %% [markdown]
# ## The closed form, and networks beside it


# %%
def simulate(preset):
    dynamics = ts.infinite.dynamics
    data = digits(TRAIN + TEST)
    train, targets = data.images[:TRAIN], data.targets[:TRAIN]
    kernels = ts.infinite.fully_connected(x1=data.images, x2=data.images, **NETWORK)
    modes = dynamics.modes(kernels.ntk[:TRAIN, :TRAIN])
    learning_rate = dynamics.largest_learning_rate(modes) / 2
    steps = np.unique(np.r_[0, np.geomspace(1, preset.steps, 22).round().astype(int)])

    def theory(step):
        response = dynamics.response(modes, kernels.ntk[:, :TRAIN], step=step, learning_rate=learning_rate)
        nngp, cross = kernels.nngp[:TRAIN, :TRAIN], kernels.nngp[:, :TRAIN]
        outputs = dynamics.ensemble(response, nngp, cross, jnp.diag(kernels.nngp), targets[:, None])
        return {"mean": outputs.mean[:, 0], "variance": outputs.variance}

    def network(width, key):
        network = ts.networks.MLP(width=width, **NETWORK)
        params = network.init(key, train)

        def loss(params):
            return jnp.square(network.apply(params, train)[:, 0] - targets).mean() / 2

        def outputs(params):
            return network.apply(params, data.images)[:, 0]

        trained = ts.networks.train(loss, params, optax.sgd(learning_rate), jnp.asarray(steps), outputs)
        own = ts.networks.empirical_ntk(network.apply, params, data.images, train)
        linear = {
            "limit": linearised(modes, kernels.ntk[:, :TRAIN]),
            "own": linearised(dynamics.modes(own[:TRAIN]), own),
        }
        return {"outputs": trained, **{name: line(trained[0]) for name, line in linear.items()}}

    def linearised(modes, cross):
        """Outputs at all steps of the linear model with this kernel, from the network's own initial outputs."""

        def at(step):
            return dynamics.response(modes, cross, step=step, learning_rate=learning_rate)

        responses = jax.vmap(at)(jnp.asarray(steps))
        return lambda initial: initial + responses @ (targets - initial[:TRAIN])

    example = {"split": ("example", ["train"] * TRAIN + ["test"] * TEST), "target": ("example", data.targets)}
    trajectories = {name: ["step", "example"] for name in ("outputs", "limit", "own")}
    lines = ts.sweep(theory, ts.Grid(step=steps), dims={"mean": ["example"], "variance": ["example"]})
    networks = ts.sweep(
        network,
        ts.Grid(width=ts.static(*preset.widths)),
        key=jax.random.key(0),
        repeats=preset.repeats,
        dims=trajectories,
        coords={"step": steps},
    )
    return xr.DataTree.from_dict(
        {"theory": lines.assign_coords(example), "simulation": networks.assign_coords(example)}
    )


# %% [markdown]
# ## What must agree
#
# From its own initial outputs, a network follows the limiting kernel up to $N^{-1/2}$ and its own kernel up to $1 / N$.
# The ratio of the two errors is the small parameter of the expansion; the next order bends an exponent by half of it.
# Means over networks approach their limit like $1 / N$: they are extrapolated.


# %%
def claims(data):
    limit, own = error(data, "limit"), error(data, "own")
    small = float((own / limit).mean("repeat").isel(width=limit.sizes["width"] // 2))
    for errors, kernel, predicted in ((limit, "the limiting", -0.5), (own, "its own initial", -1)):
        fit = ts.study.exponent(errors["width"].values, errors.transpose("width", "repeat").values)
        yield ts.study.Claim(
            f"distance of a network from linear training with {kernel} kernel: exponent in the width",
            predicted=predicted,
            measured=fit.value,
            tolerance=3 * fit.standard_error + small / 2,
            why="three standard errors over networks, and half the ratio of the next order to this one",
        )
    z = standardised(data)
    for what, predicted, samples in (
        ("share of test outputs in the 95 % band, all times", 0.95, (abs(z) < 1.96).mean(("example", "step"))),
        ("mean square of standardised test outputs, all times", 1, (z**2).mean(("example", "step"))),
        ("test loss after training", expected_loss(data, "test").isel(step=-1), loss(data, "test").isel(step=-1)),
    ):
        limit = ts.study.extrapolate(samples["width"].values, samples.transpose("width", "repeat").values)
        yield ts.study.Claim(
            f"{what}, extrapolated in 1 / width",
            predicted=predicted,
            measured=limit.value,
            tolerance=3 * limit.standard_error,
            why="three standard errors over networks",
        )


def on(data, node, split):
    examples = data[node].to_dataset()
    return examples.isel(example=np.flatnonzero(examples["split"] == split))


def error(data, kernel):
    """Root mean square over test inputs and times of a network's distance from its linearisation."""
    networks = on(data, "simulation", "test")
    return np.sqrt(((networks["outputs"] - networks[kernel]) ** 2).mean(("example", "step")))


def standardised(data):
    networks, theory = on(data, "simulation", "test"), on(data, "theory", "test")
    return (networks["outputs"] - theory["mean"]) / np.sqrt(theory["variance"])


def loss(data, split):
    networks = on(data, "simulation", split)
    return ((networks["outputs"] - networks["target"]) ** 2).mean("example") / 2


def expected_loss(data, split):
    theory = on(data, "theory", split)
    return ((theory["mean"] - theory["target"]) ** 2 + theory["variance"]).mean("example") / 2


# %% [markdown]
# ## Theory as lines, networks as points


# %%
def draw(data):
    figure, axes = plt.subplots(2, 2, figsize=ts.study.page(2, 2, 0.72))
    outputs_panel(axes[0, 0], data)
    loss_panel(axes[0, 1], data)
    width_panel(axes[1, 0], data)
    distribution_panel(axes[1, 1], data)
    return {"ntk_dynamics": figure}


def outputs_panel(panel, data):
    theory = on(data, "theory", "test").isel(step=slice(1, None))
    networks = on(data, "simulation", "test")["outputs"].isel(width=-1, step=slice(1, None))
    ranked = np.argsort(theory["mean"].isel(step=-1).values)
    for color, index in zip(ts.study.PALETTE, ranked[[0, len(ranked) // 2, -1]], strict=False):
        line, sample = theory.isel(example=index), networks.isel(example=index)
        spread = np.sqrt(line["variance"])
        panel.plot(line["step"], line["mean"], color=color)
        panel.fill_between(
            line["step"], line["mean"] - spread, line["mean"] + spread, color=color, alpha=0.15, linewidth=0
        )
        panel.errorbar(line["step"], sample.mean("repeat"), sample.std("repeat"), fmt="o", color=color, linewidth=0.7)
    width = int(networks["width"])
    panel.set(title=f"(a) outputs for three test digits, width {width}", xlabel="step", xscale="log")
    panel.set_ylabel("mean and std (band: theory)")


def loss_panel(panel, data):
    for color, split in zip(ts.study.PALETTE, ("train", "test"), strict=False):
        theory, networks = (
            expected_loss(data, split).isel(step=slice(1, None)),
            loss(data, split).isel(step=slice(1, None)),
        )
        panel.plot(theory["step"], theory, color=color, label=f"{split}, infinite width")
        for width, marker, face in (
            (networks["width"].values[0], "s", "white"),
            (networks["width"].values[-1], "o", color),
        ):
            mean, standard_error = ts.study.mean_and_error(networks.sel(width=width))
            label = f"{split}, width {width}"
            style = {"fmt": marker, "color": color, "markerfacecolor": face, "linewidth": 0.7}
            panel.errorbar(theory["step"], mean, standard_error, label=label, **style)
    panel.set(title="(b) mean loss", xlabel="step", ylabel="loss", xscale="log", yscale="log")
    panel.legend()


def width_panel(panel, data):
    for color, kernel, power, label in (
        (ts.study.PALETTE[0], "limit", -0.5, "limiting kernel"),
        (ts.study.PALETTE[1], "own", -1.0, "own initial kernel"),
    ):
        mean, standard_error = ts.study.mean_and_error(error(data, kernel))
        width = mean["width"].values
        scale = np.exp(np.mean(np.log(mean.values) - power * np.log(width)))
        panel.plot(width, scale * width**power, color=color, label=f"$N^{{{power:g}}}$")
        panel.errorbar(width, mean, standard_error, fmt="o", color=color, label=label)
    panel.set(title="(c) distance from linear training", xlabel="width $N$", ylabel="rms distance on test digits")
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set_xticks(width, [f"{w}" for w in width])
    panel.legend(ncols=2)


def distribution_panel(panel, data):
    z = standardised(data).isel(width=-1, step=slice(1, None))
    edges = np.linspace(-3.5, 3.5, 22)
    centres, step = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    counts = np.stack([np.histogram(z.isel(repeat=i), edges)[0] for i in range(z.sizes["repeat"])])
    density = counts / (step * z.isel(repeat=0).size)
    x = np.linspace(-3.5, 3.5, 200)
    panel.plot(x, np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), color=ts.study.PALETTE[0], label="standard normal")
    standard_error = density.std(0, ddof=1) / np.sqrt(len(density))
    label = f"width {int(z['width'])}"
    panel.errorbar(centres, density.mean(0), standard_error, fmt="o", color=ts.study.PALETTE[1], label=label)
    panel.set(title="(d) test outputs, standardised by theory", xlabel="(output - mean) / standard deviation")
    panel.set(ylabel="density", ylim=(0, None))
    panel.legend()


# %%
if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    plt.rcParams.update(ts.study.style())
    data = simulate(PRESETS["smoke"])
    draw(data)
