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

# %% [markdown]
# ## Limits and their fluctuations, and networks beside them


# %%
def simulate(preset):
    x = jnp.asarray(ts.study.digits(INPUTS, scale="image").images)
    names = [activation.name for activation in preset.activations]

    def limits(activation):
        kernels = ts.infinite.fully_connected(activation, x, depth=DEPTH, normalised=True, **VARIANCES)
        variance = ts.infinite.nngp_variance(activation, x, depth=DEPTH, **VARIANCES)
        spread = variance.sum() / jnp.square(kernels.nngp).sum()
        return {"nngp": kernels.nngp, "ntk": kernels.ntk, "nngp_spread": spread}

    grid = ts.Grid(activation=ts.static(*preset.activations))
    limit = ts.sweep(limits, grid, dims={"nngp": ["a", "b"], "ntk": ["a", "b"]})
    nngp, ntk = jnp.asarray(limit["nngp"].values), jnp.asarray(limit["ntk"].values)

    # One program for all activations: which of them is a traced number.
    def chosen(activation):
        return lambda z: jax.lax.switch(activation, preset.activations, z)

    def network(activation, width, key):
        network = ts.networks.MLP(width=width, depth=DEPTH, activation=chosen(activation), **VARIANCES)
        params = ts.networks.standard_normal_params(network, x, key=key)

        def given_hidden(readout, x):
            return network.apply({"params": {**params["params"], READOUT: readout}}, x)

        # The tangent kernel of the readout alone is the covariance of the outputs over readouts.
        own_nngp = ts.networks.empirical_ntk(given_hidden, params["params"][READOUT], x)
        own_ntk = ts.networks.empirical_ntk(network.apply, params, x)
        return {
            f"{name}_{what}": measure(kernel, limit[activation])
            for name, kernel, limit in (("nngp", own_nngp, nngp), ("ntk", own_ntk, ntk))
            for what, measure in (("distance", distance), ("projection", projection))
        }

    which = np.arange(len(names))
    grid = ts.Grid(activation=which, width=ts.static(*preset.widths))
    networks = ts.sweep(network, grid, key=jax.random.key(0), repeats=preset.repeats)
    return ts.study.tree(theory=limit, simulation=networks.assign_coords(activation=names))


def distance(kernel, limit):
    """Relative Frobenius distance."""
    return jnp.linalg.norm(kernel - limit) / jnp.linalg.norm(limit)


def projection(kernel, limit):
    """On the limit, as a multiple of it."""
    return (kernel * limit).sum() / jnp.square(limit).sum()


# %% [markdown]
# ## What must agree


# %%
def claims(data):
    theory, networks = data["theory"].to_dataset(), data["simulation"].to_dataset()
    smallest = int(networks["width"][0])
    for name in networks["activation"].values:
        of = networks.sel(activation=name)
        for kernel in ("NNGP", "NTK"):
            yield ts.study.exponent_agrees(
                f"{name}: distance of the {kernel}",
                f"{name}: exponent in the width of the {kernel}'s distance from its limit",
                -0.5,
                of[f"{kernel.lower()}_distance"],
                next_order=DEPTH / smallest,
                why="depth / width of the smallest networks",
            )
            yield ts.study.limit_agrees(
                f"{name}: mean {kernel}",
                f"{name}: projection of the mean {kernel} on its limit, as a multiple of it, extrapolated in 1 / width",
                1,
                of[f"{kernel.lower()}_projection"],
                next_order=(DEPTH / smallest) ** 2,
                why="(depth / width)^2 of the smallest networks",
            )
        yield ts.study.limit_agrees(
            f"{name}: fluctuation of the NNGP",
            f"{name}: width times the mean square of the NNGP's relative distance from its limit, "
            "extrapolated in 1 / width",
            theory["nngp_spread"].sel(activation=name),
            of["nngp_distance"] ** 2 * of["width"],
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
        apart = 1.06 ** (number - 1.5)
        ts.study.points(panels[2], of["ntk_projection"], width * apart, color=color)
    for panel in panels:
        ts.study.width_axis(panel, width)
    panels[0].set(title="(a) NNGP, lines: theory", ylabel="rms relative distance")
    panels[1].set(title=r"(b) NTK, lines: $c\, N^{-1/2}$", ylabel="rms relative distance")
    panels[2].set(title="(c) mean NTK, line: limit", ylabel=r"$\langle\Theta_N, \Theta\rangle\, /\, |\Theta|^2$")
    panels[2].axhline(1, color="0.5", zorder=0)
    panels[0].legend()
    return {"kernel_convergence": figure}


def distance_panel(panel, samples, scale, color, label):
    width = samples["width"].values
    panel.plot(width, scale / np.sqrt(width), color=color)
    ts.study.rms_points(panel, samples, color=color, label=label)
    panel.set_yscale("log", base=2)
    panel.set_yticks([0.0625, 0.125, 0.25, 0.5], ["1/16", "1/8", "1/4", "1/2"])
    panel.set_ylim(0.06, 0.6)


# %%
if __name__ == "__main__":
    ts.study.set_up()
    data = simulate(PRESETS["smoke"])
    draw(data)
    print(*claims(data), sep="\n")
