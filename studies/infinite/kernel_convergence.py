"""How wide is infinitely wide? The two kernels of networks of growing width, on images of digits, come as close to
their limits as the theory of their fluctuations says: the distance falls like one over the root of the width.
"""

# %% [markdown]
# # Kernels of finite networks
#
# A network of width $N$ has two kernels at initialisation. Given its hidden weights, its outputs have covariance
# $K_N = \sigma_w^2\, \phi(h)\phi(h)^\top / N + \sigma_b^2$ over readouts; and it has the tangent kernel
# $\Theta_N = \sum_p \partial_p f\, \partial_p f^\top$. Both concentrate on their limits, $K$ and $\Theta$, with
# fluctuations like $N^{-1/2}$ and a bias like $1 / N$.
#
# Neurons of a layer are independent given the layer before. To leading order the covariance $V / N$ of
# $\kappa = (K_{aa}, K_{ab}, K_{bb})$, for two inputs $a$ and $b$, so obeys
#
# $$V \leftarrow \sigma_w^4\, \mathrm{Cov}[(\phi(u)^2, \phi(u)\phi(v), \phi(v)^2)] + J V J^\top,$$
#
# where $J$ is the Jacobian of the map from one layer's $\kappa$ to the next. It predicts the distance of $K_N$ from $K$
# with no free parameter.

# %%
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from jax.flatten_util import ravel_pytree
from sklearn.datasets import load_digits

import theorysim as ts

TITLE = "Kernels of finite networks"
SOURCES = ("arXiv:1806.07572", "arXiv:1711.00165", "arXiv:2106.10165")


class Preset(NamedTuple):
    """Activations and widths of the networks, and how many of each."""

    activations: tuple[ts.infinite.Activation, ...]
    widths: tuple[int, ...]
    repeats: int


ACTIVATIONS = (ts.infinite.relu, ts.infinite.tanh, ts.infinite.erf, ts.infinite.gelu)
PRESETS = {
    "smoke": Preset(ACTIVATIONS[:2], (64, 256), repeats=64),
    "laptop": Preset(ACTIVATIONS, (64, 128, 256, 512), repeats=64),
    "paper": Preset(ACTIVATIONS, (64, 128, 256, 512, 1024, 2048, 4096), repeats=384),
}
INPUTS, DEPTH = 12, 2
VARIANCES = {"weight_var": 1.5, "bias_var": 0.1}
READOUT = f"NTKDense_{DEPTH}"


def digits():
    """Images of 8 x 8 pixels on the sphere, their mean square 1."""
    images = load_digits().data[:INPUTS]
    images = images - images.mean(0)
    return jnp.asarray(images / np.sqrt((images**2).mean(1, keepdims=True)))


# %% [markdown]
# ## Limits and their fluctuations, and networks beside them


# %%
def simulate(preset):
    x = digits()
    names = [activation.name for activation in preset.activations]

    def limits(activation):
        return ts.infinite.fully_connected(activation, x, depth=DEPTH, normalised=True, **VARIANCES)

    grid = ts.Grid(activation=ts.static(*preset.activations))
    limit = ts.sweep(limits, grid, dims={name: ["a", "b"] for name in ("nngp", "ntk", "angle")}).drop_vars("angle")
    nngp, ntk = jnp.asarray(limit["nngp"].values), jnp.asarray(limit["ntk"].values)

    # One program for all activations: which of them is a traced number.
    def chosen(activation):
        return lambda z: jax.lax.switch(activation, preset.activations, z)

    def spread(activation):
        variance = ts.infinite.nngp_variance(chosen(activation), x, depth=DEPTH, **VARIANCES)
        return {"nngp_spread": variance.sum() / jnp.square(nngp[activation]).sum()}

    def network(activation, width, key):
        network = ts.networks.MLP(width=width, depth=DEPTH, activation=chosen(activation), **VARIANCES)
        params = standard_normal(key, jax.eval_shape(network.init, key, x))

        def given_hidden(readout, x):
            return network.apply({"params": {**params["params"], READOUT: readout}}, x)

        # The tangent kernel of the readout alone is the covariance of the outputs over readouts.
        own_nngp = ts.networks.empirical_ntk(given_hidden, params["params"][READOUT], x)
        own_ntk = ts.networks.empirical_ntk(network.apply, params, x)
        return {
            f"{name}_{what}": measure(kernel, limit[activation])
            for name, kernel, limit in (("nngp", own_nngp, nngp), ("ntk", own_ntk, ntk))
            for what, measure in (("distance", distance), ("share", share))
        }

    which = np.arange(len(names))
    spreads = ts.sweep(spread, ts.Grid(activation=which)).assign_coords(activation=names)
    grid = ts.Grid(activation=which, width=ts.static(*preset.widths))
    networks = ts.sweep(network, grid, key=jax.random.key(0), repeats=preset.repeats)
    return xr.DataTree.from_dict(
        {"theory": limit.merge(spreads), "simulation": networks.assign_coords(activation=names)}
    )


def standard_normal(key, shapes):
    """The law of the network's initial parameters, by one draw in single precision: each costs time to compile."""
    flat, unflatten = ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))
    return unflatten(jax.random.normal(key, flat.shape, jnp.float32).astype(flat.dtype))


def distance(kernel, limit):
    """Relative Frobenius distance."""
    return jnp.linalg.norm(kernel - limit) / jnp.linalg.norm(limit)


def share(kernel, limit):
    """Of the limit in the kernel: 1 where they agree."""
    return (kernel * limit).sum() / jnp.square(limit).sum()


# %% [markdown]
# ## What must agree


# %%
def claims(data):
    theory, networks = data["theory"].to_dataset(), data["simulation"].to_dataset()
    width = networks["width"].values
    for name in networks["activation"].values:
        of = networks.sel(activation=name).transpose("width", "repeat")
        for kernel in ("nngp", "ntk"):
            fit = ts.study.exponent(width, of[f"{kernel}_distance"].values)
            yield ts.study.Claim(
                f"{name}: distance of the {kernel.upper()} from its limit, exponent in the width",
                predicted=-0.5,
                measured=fit.value,
                tolerance=3 * fit.standard_error + DEPTH / width[0],
                why="three standard errors over networks, and depth / width of the smallest: the next order",
            )
        scaled = ts.study.extrapolate(width, of["nngp_distance"].values ** 2 * width[:, None])
        yield ts.study.Claim(
            f"{name}: width times the NNGP's mean square distance, extrapolated in 1 / width",
            predicted=float(theory["nngp_spread"].sel(activation=name)),
            measured=scaled.value,
            tolerance=3 * scaled.standard_error,
            why="three standard errors over networks",
        )
        for kernel in ("nngp", "ntk"):
            limit = ts.study.extrapolate(width, of[f"{kernel}_share"].values)
            yield ts.study.Claim(
                f"{name}: share of the limit in the mean {kernel.upper()}, extrapolated in 1 / width",
                predicted=1,
                measured=limit.value,
                tolerance=3 * limit.standard_error + (DEPTH / width[0]) ** 2,
                why="three standard errors over networks, and (depth / width)^2 of the smallest: the next order",
            )


# %% [markdown]
# ## Theory as lines, networks as points


# %%
def draw(data):
    figure, panels = plt.subplots(1, 3, figsize=ts.study.page(1, 3, 1.0))
    theory, networks = data["theory"].to_dataset(), data["simulation"].to_dataset()
    for number, (color, name) in enumerate(zip(ts.study.PALETTE, networks["activation"].values, strict=False)):
        of = networks.sel(activation=name)
        width = of["width"].values
        spread = float(theory["nngp_spread"].sel(activation=name))
        distance_panel(panels[0], of["nngp_distance"], np.sqrt(spread), color, name)
        ntk = np.sqrt((of["ntk_distance"] ** 2).mean("repeat") * width)
        distance_panel(panels[1], of["ntk_distance"], np.exp(np.log(ntk).mean().item()), color, name)
        mean, error = ts.study.mean_and_error(of["ntk_share"])
        apart = 1.06 ** (number - 1.5)
        panels[2].errorbar(width * apart, mean, error, fmt="o", color=color)
    for panel in panels:
        panel.set_xscale("log", base=2)
        panel.set(xlabel="width $N$", xticks=width, xticklabels=[f"{w}" for w in width])
    panels[0].set(title="(a) NNGP, lines: theory", ylabel="rms relative distance")
    panels[1].set(title=r"(b) NTK, lines: $c\, N^{-1/2}$", ylabel="rms relative distance")
    panels[2].set(title="(c) mean NTK, line: limit", ylabel=r"$\langle\Theta_N, \Theta\rangle\, /\, |\Theta|^2$")
    panels[2].axhline(1, color="0.5", zorder=0)
    panels[0].legend()
    return {"kernel_convergence": figure}


def distance_panel(panel, samples, scale, color, label):
    width = samples["width"].values
    squares, error = ts.study.mean_and_error(samples**2)
    panel.plot(width, scale / np.sqrt(width), color=color)
    panel.errorbar(width, np.sqrt(squares), error / (2 * np.sqrt(squares)), fmt="o", color=color, label=label)
    panel.set_yscale("log", base=2)
    panel.set_yticks([0.0625, 0.125, 0.25, 0.5], ["1/16", "1/8", "1/4", "1/2"])
    panel.set_ylim(0.06, 0.6)


# %%
if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    plt.rcParams.update(ts.study.style())
    data = simulate(PRESETS["smoke"])
    draw(data)
