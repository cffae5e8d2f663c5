"""How fast does the variance of a deep network's layers settle? Replace this sentence by your question."""

# %% [markdown]
# # The variance of deep layers
#
# State the formula and where it comes from. Here: a layer maps the variance $q$ of its preactivations to
# $V(q) = \sigma_w^2\, E[\phi(\sqrt q z)^2] + \sigma_b^2$.

# %%
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import theorysim as ts

TITLE = "The variance of deep layers"
SOURCES = ("arXiv:1606.05340",)


class Preset(NamedTuple):
    """Sizes: seconds for smoke, a minute for laptop, an accelerator for paper."""

    width: int
    repeats: int


PRESETS = {"smoke": Preset(100, 16), "laptop": Preset(300, 64), "paper": Preset(1000, 1024)}
DEPTH = 12


# %%
def simulate(preset):
    grid = ts.Grid(weight_var=np.array([1.0, 2.0, 3.0]))

    def theory(weight_var):
        def layer(q, _):
            q = ts.infinite.phase.variance_map(ts.infinite.tanh, q, weight_var=weight_var, bias_var=0.1)
            return q, q

        return {"variance": jax.lax.scan(layer, jnp.ones_like(weight_var), length=DEPTH)[1]}

    def network(weight_var, key):
        options = {"key": key, "width": preset.width, "depth": DEPTH}
        return {
            "variance": ts.networks.propagate(ts.infinite.tanh, weight_var=weight_var, bias_var=0.1, **options).variance
        }

    labels = {"dims": {"variance": ["layer"]}, "coords": {"layer": 1 + np.arange(DEPTH)}}
    return ts.study.tree(
        theory=ts.sweep(theory, grid, **labels),
        simulation=ts.sweep(network, grid, key=jax.random.key(0), repeats=preset.repeats, **labels),
    )


# %%
def claims(data):
    samples = data["simulation"]["variance"].isel(layer=-1)
    mean, error = ts.study.mean_and_error(samples)
    deviations = ((mean - data["theory"]["variance"].isel(layer=-1)) / error).values
    yield ts.study.Claim(
        "deep variance",
        f"variance of layer {DEPTH}: mean deviation of networks from theory, in standard errors",
        predicted=0,
        measured=deviations.mean(),
        tolerance=3 / np.sqrt(deviations.size),
        why=f"three standard errors of the mean of {deviations.size} deviations",
        standard_error=1 / np.sqrt(deviations.size),
    )


# %%
def draw(data):
    figure, axes = plt.subplots(figsize=ts.study.page(1, 2))
    theory, samples = data["theory"]["variance"], data["simulation"]["variance"]
    for color, weight_var in zip(ts.study.PALETTE, theory["weight_var"].values, strict=False):
        axes.plot(
            theory["layer"], theory.sel(weight_var=weight_var), color=color, label=rf"$\sigma_w^2 = {weight_var:g}$"
        )
        mean, error = ts.study.mean_and_error(samples.sel(weight_var=weight_var))
        axes.errorbar(theory["layer"], mean, error, fmt="o", color=color)
    axes.set(xlabel="layer", ylabel="variance of preactivations")
    axes.legend()
    return {"variance": figure}


# %%
if __name__ == "__main__":
    ts.study.set_up()
    data = simulate(PRESETS["smoke"])
    draw(data)
    print(*claims(data), sep="\n")
