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
import numpy as np
import optax

import theorysim as ts

TITLE = "Training dynamics of wide networks"
SOURCES = ("arXiv:1806.07572", "arXiv:1902.06720")


class Preset(NamedTuple):
    """Widths of the networks, how many of each, and how long they train."""

    widths: tuple[int, ...]
    repeats: int
    steps: int


PRESETS = {
    "smoke": Preset((32, 128), repeats=32, steps=64),
    "laptop": Preset((64, 128, 256, 512), repeats=48, steps=96),
    "paper": Preset((64, 128, 256, 512, 1024, 2048, 4096), repeats=128, steps=1024),
}
TRAIN, TEST = 64, 32
NETWORK = {"depth": 2, "activation": ts.infinite.erf, "weight_var": 2.0, "bias_var": 0.1}


# %% [markdown]
# ## The closed form, and networks beside it


# %%
def simulate(preset):
    dynamics = ts.infinite.dynamics
    digits = ts.study.digits(TRAIN + TEST, scale="set")
    images = jnp.asarray(digits.images)
    train, targets = images[:TRAIN], jnp.asarray(digits.parity[:TRAIN])
    kernels = ts.infinite.fully_connected(x1=images, **NETWORK)
    modes = dynamics.modes(kernels.ntk[:TRAIN, :TRAIN])
    learning_rate = dynamics.largest_learning_rate(modes) / 2
    steps = np.unique(np.r_[0, np.geomspace(1, preset.steps, 22).round().astype(int)])

    def theory(step):
        response = dynamics.response(modes, kernels.ntk[:, :TRAIN], steps=step, learning_rate=learning_rate)
        nngp, cross = kernels.nngp[:TRAIN, :TRAIN], kernels.nngp[:, :TRAIN]
        outputs = dynamics.ensemble(response, nngp, cross, jnp.diag(kernels.nngp), targets[:, None])
        return {"mean": outputs.mean[:, 0], "variance": outputs.variance}

    def network(width, key):
        network = ts.networks.MLP(width=width, **NETWORK)
        params = ts.networks.standard_normal_params(network, train, key=key)

        def loss(params, _):
            return jnp.square(network.apply(params, train)[:, 0] - targets).mean() / 2

        def outputs(params):
            return network.apply(params, images)[:, 0]

        trained = ts.networks.train(loss, params, optax.sgd(learning_rate), jnp.asarray(steps), outputs)
        own = ts.networks.empirical_ntk(network.apply, params, images, train)
        linear = {
            "limit": linearised(modes, kernels.ntk[:, :TRAIN]),
            "own": linearised(dynamics.modes(own[:TRAIN]), own),
        }
        return {"outputs": trained, **{name: line(trained[0]) for name, line in linear.items()}}

    def linearised(modes, cross):
        """Outputs at all steps of the linear model with this kernel, from the network's own initial outputs."""

        def at(step):
            return dynamics.response(modes, cross, steps=step, learning_rate=learning_rate)

        responses = jax.vmap(at)(jnp.asarray(steps))
        return lambda initial: initial + responses @ (targets - initial[:TRAIN])

    example = {"split": ("example", ["train"] * TRAIN + ["test"] * TEST), "target": ("example", digits.parity)}
    trajectories = {name: ["step", "example"] for name in ("outputs", "limit", "own")}
    lines = ts.sweep(theory, ts.Grid(step=steps), dims={"mean": ["example"], "variance": ["example"]})
    named = {"dims": trajectories, "coords": {"step": steps}}
    random = {"key": jax.random.key(0), "repeats": preset.repeats}
    networks = ts.sweep(network, ts.Grid(width=ts.static(*preset.widths)), **random, **named)
    return ts.study.tree(theory=lines.assign_coords(example), simulation=networks.assign_coords(example))


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
    for name, errors, predicted in (("limiting", limit, -0.5), ("own initial", own, -1)):
        yield ts.study.exponent_agrees(
            f"{name} kernel",
            f"exponent in the width of a network's distance from linear training with its {name} kernel",
            predicted,
            errors,
            next_order=small / 2,
            why="half the ratio of the next order to this one",
        )
    z = standardised(data)
    yield ts.study.limit_agrees(
        "95 % band",
        "probability of a test output in the 95 % band of infinite width, at all times, extrapolated in 1 / width",
        0.95,
        (abs(z) < 1.96).mean(("example", "step")),
        span=(0, 1),
    )
    yield ts.study.limit_agrees(
        "spread",
        "mean square of test outputs, standardised by theory, at all times, extrapolated in 1 / width",
        1,
        (z**2).mean(("example", "step")),
    )
    yield ts.study.limit_agrees(
        "test loss",
        "mean test loss after training, extrapolated in 1 / width: that of infinite width",
        expected_loss(data, "test").isel(step=-1),
        mean_loss(data, "test").isel(step=-1),
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


def mean_loss(data, split):
    networks = on(data, "simulation", split)
    return ((networks["outputs"] - networks["target"]) ** 2).mean("example") / 2


def expected_loss(data, split):
    theory = on(data, "theory", split)
    return ((theory["mean"] - theory["target"]) ** 2 + theory["variance"]).mean("example") / 2


# %% [markdown]
# ## Theory as lines, networks as points


# %%
def draw(data):
    panels = outputs_panel, loss_panel, width_panel, distribution_panel
    return {"ntk_dynamics": ts.study.drawn(data, *panels, height_to_width=0.72)}


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
    later = {"step": slice(1, None)}
    for color, split in zip(ts.study.PALETTE, ("train", "test"), strict=False):
        theory, networks = expected_loss(data, split).isel(later), mean_loss(data, split).isel(later)
        panel.plot(theory["step"], theory, color=color, label=f"{split}, infinite width")
        ts.study.narrow_and_wide(panel, networks, color, label=f"{split}, ")
    panel.set(title="(b) mean loss", xlabel="step", ylabel="loss", xscale="log", yscale="log")
    panel.legend()


def width_panel(panel, data):
    for color, kernel, power, label in (
        (ts.study.PALETTE[0], "limit", -0.5, "limiting kernel"),
        (ts.study.PALETTE[1], "own", -1.0, "own initial kernel"),
    ):
        distance = error(data, kernel)
        width = distance["width"].values
        ts.study.power_line(panel, width, distance.mean("repeat"), power, color=color, label=f"$N^{{{power:g}}}$")
        ts.study.points(panel, distance, color=color, label=label)
    panel.set(title="(c) distance from linear training", ylabel="rms distance on test digits", yscale="log")
    ts.study.width_axis(panel, width)
    panel.legend(ncols=2)


def distribution_panel(panel, data):
    z = standardised(data).isel(width=-1, step=slice(1, None))
    x = np.linspace(-3.5, 3.5, 200)
    panel.plot(x, np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), color=ts.study.PALETTE[0], label="standard normal")
    style = {"color": ts.study.PALETTE[1], "label": f"width {int(z['width'])}"}
    ts.study.density_points(panel, z, np.linspace(-3.5, 3.5, 22), **style)
    panel.set(title="(d) test outputs, standardised by theory", xlabel="(output - mean) / standard deviation")
    panel.set(ylabel="density", ylim=(0, None))
    panel.legend()


# %%
if __name__ == "__main__":
    ts.study.set_up()
    data = simulate(PRESETS["smoke"])
    draw(data)
    print(*claims(data), sep="\n")
