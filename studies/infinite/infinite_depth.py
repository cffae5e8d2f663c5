"""What does a network of infinite width and depth predict? A majority vote, the label of the nearest neighbour, or a
vote whose weights fall with a power of the distance; only the last can be as good as any rule, at one power.
"""

# %% [markdown]
# # Infinitely deep classifiers
#
# As depth grows, the kernels of a wide network settle into one of three rules, which the activation's Hermite
# coefficients $a_0, a_1$ decide. Where $a_0 = 0 \ne a_1$, the limit is the sign of $\sum_i \kappa(x, x_i)\, y_i$ with a
# kernel that is singular at $x_i$, $\kappa \sim |x - x_i|^{-\alpha}$, $\alpha = -4 \log a_1 / \log B$. It solves
# $\kappa(\psi(z)) = a_1^2 \kappa(z)$, where $\psi$ is what a layer makes of a cosine $z$. With $\alpha$ equal to the
# dimension of the data the rule is consistent: its error tends to the least possible. Here the data lie on a sphere of
# two dimensions, in the octant of positive coordinates, and labels are random: $P(y = 1 \mid x) = \eta(x)$.

# %%
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import theorysim as ts

TITLE = "Infinitely deep classifiers"
SOURCES = ("arXiv:2204.14126",)


class Preset(NamedTuple):
    """Sizes of the training sets, test inputs, and data sets of each size."""

    sizes: tuple[int, ...]
    tests: int
    repeats: int


PRESETS = {
    "smoke": Preset((16, 64, 256), tests=64, repeats=24),
    "laptop": Preset((16, 64, 256, 1024), tests=64, repeats=48),
    "paper": Preset((16, 64, 256, 1024, 4096, 16384), tests=2048, repeats=256),
}
ALPHAS = (0.5, 1.0, 2.0, 4.0, 8.0)
DIMENSION = 2
ACTIVATIONS = {"$\\alpha = 2$": ts.infinite.depth.activation_of(2), "erf": ts.infinite.erf, "sin": ts.infinite.sin}
DEPTHS = (10, 100, 1000)
DISTANCES = np.geomspace(0.02, 1.3, 61)


def eta(x):
    """P(y = 1 | x): 0.35 on average over the octant, from 0.05 to 0.95 across a curved front."""
    return 0.05 + 0.9 * jax.nn.sigmoid(12 * (x[:, 0] - x[:, 1] * x[:, 2] - 0.5))


def sphere(key, count):
    """Uniform on the octant."""
    x = jnp.abs(jax.random.normal(key, (count, DIMENSION + 1)))
    return x / jnp.linalg.norm(x, axis=1, keepdims=True)


# %% [markdown]
# ## The limit, deep kernels, and classifiers on random data
#
# Error rates are exact for each data set's test inputs, since $\eta$ is known: no test label is drawn.


# %%
def simulate(preset):
    depth = ts.infinite.depth

    def theory(distance):
        deficit = distance**2 / 2
        return {"kernel": jnp.stack([depth.koenigs(a, deficit) for a in ACTIVATIONS.values()])}

    def deep(distance):
        """Of the first activation, tangent kernels of finite depth."""
        first, *_ = ACTIVATIONS.values()
        return {"ntk": jnp.array([depth.deep(first, distance**2 / 2, depth=layers).ntk for layers in DEPTHS])}

    def bayes(batch, key):  # noqa: ARG001 (the batch is the key)
        p = eta(sphere(key, 2**15))
        return {"bayes": jnp.minimum(p, 1 - p).mean(), "nearest": (2 * p * (1 - p)).mean(), "majority": p.mean()}

    def classifiers(data_set, key):  # noqa: ARG001 (the data set is the key)
        """Of one stream of inputs, the first of which are the smaller training sets."""
        train, labels, test = jax.random.split(key, 3)
        x, new = sphere(train, preset.sizes[-1]), sphere(test, preset.tests)
        p, q = eta(x), eta(new)
        y = jnp.where(jax.random.uniform(labels, p.shape) < p, 1.0, -1.0)
        kernels = [depth.kernel(depth.activation_of(alpha), new, x) for alpha in ALPHAS]

        def error(rule):
            return jnp.array([jnp.where(rule(size) > 0, 1 - q, q).mean() for size in preset.sizes])

        def singular(kernel):
            return error(lambda size: depth.classify(kernel[:, :size], y[:size]))

        return {
            "singular": jnp.stack([singular(kernel) for kernel in kernels]),
            "nearest": error(lambda size: depth.nearest_neighbour(kernels[-1][:, :size], y[:size])),
            "majority": error(lambda size: depth.majority_vote(y[:size])),
            "bayes": jnp.minimum(q, 1 - q).mean(),
        }

    every, some = ts.Grid(distance=DISTANCES), ts.Grid(distance=DISTANCES[::6])
    named = {"dims": {"kernel": ["activation"]}, "coords": {"activation": list(ACTIVATIONS)}}
    by_layers = {"dims": {"ntk": ["layers"]}, "coords": {"layers": np.array(DEPTHS)}}
    by_size = {
        "dims": {"singular": ["alpha", "size"], "nearest": ["size"], "majority": ["size"]},
        "coords": {"alpha": np.array(ALPHAS), "size": np.array(preset.sizes)},
    }
    rates = ts.sweep(bayes, ts.Grid(batch=np.arange(16)), key=jax.random.key(0))
    data_sets = ts.Grid(data_set=np.arange(preset.repeats))
    simulation = ts.sweep(classifiers, data_sets, key=jax.random.key(1), lanes=8, **by_size)
    return ts.study.tree(
        theory=ts.sweep(theory, every, **named),
        rates=rates.rename(batch="repeat"),
        deep=ts.sweep(deep, some, **by_layers),
        simulation=simulation.rename(data_set="repeat"),
    )


# %% [markdown]
# ## What must agree


# %%
def claims(data):
    errors, rates = data["simulation"].to_dataset(), data["rates"]
    size = int(errors["size"][-1])
    last = errors.sel(size=size)
    yield ts.study.agrees(
        "majority vote",
        f"error of the majority vote of {size} inputs: the probability of the rarer label",
        ts.study.mean_estimate(rates["majority"]),
        ts.study.mean_estimate(last["majority"]),
        span=(0, 1),
    )
    yield ts.study.agrees(
        "nearest neighbour",
        f"error of the nearest of {size} neighbours: the mean of 2 eta (1 - eta)",
        ts.study.mean_estimate(rates["nearest"]),
        ts.study.mean_estimate(last["nearest"]),
        next_order=1 / size,
        why="1 / size, the squared distance of neighbours",
        span=(0, 1),
    )
    best = {"alpha": float(DIMENSION)}
    excess = (errors["singular"] - errors["bayes"]).sel(best)
    yield ts.study.lies_below(
        "more data",
        f"alpha = dimension: the error above the least possible is lower with {size} inputs than with "
        f"{int(errors['size'][0])}",
        excess.sel(size=size),
        excess.isel(size=0),
    )
    for name, rule, other in (
        ("below the nearest neighbour's", "the nearest neighbour", last["nearest"]),
        (f"below that of alpha = {ALPHAS[0]:g}", f"alpha = {ALPHAS[0]:g}", last["singular"].sel(alpha=ALPHAS[0])),
        (f"below that of alpha = {ALPHAS[-1]:g}", f"alpha = {ALPHAS[-1]:g}", last["singular"].sel(alpha=ALPHAS[-1])),
    ):
        sentence = f"{size} inputs: the error of alpha = dimension is below that of {rule}"
        yield ts.study.lies_below(name, sentence, last["singular"].sel(best), other)


# %% [markdown]
# ## The kernel, and error rates


# %%
def draw(data):
    panels = kernel_panel, depth_panel, size_panel, alpha_panel
    return {"infinite_depth": ts.study.drawn(data, *panels, height_to_width=0.72)}


def kernel_panel(panel, data):
    lines = data["theory"]["kernel"]
    for color, (name, activation) in zip(ts.study.PALETTE, ACTIVATIONS.items(), strict=False):
        alpha = ts.infinite.depth.limit(activation).alpha
        label = name if "alpha" in name else rf"{name}, $\alpha = {alpha:.2f}$"
        panel.plot(lines["distance"], lines.sel(activation=name), color=color, label=label)
    panel.set(title="(a) limiting kernels", xlabel="distance $|x - x'|$", ylabel=r"$\kappa$")
    panel.set(xscale="log", yscale="log")
    panel.legend()


def depth_panel(panel, data):
    """Deep kernels of the first activation, over their limit."""
    name = next(iter(ACTIVATIONS))
    ratio = data["deep"]["ntk"] / data["theory"]["kernel"].sel(activation=name)
    panel.axhline(1, color="black", label="limit")
    for color, marker, layers in zip(ts.study.PALETTE, "v^o", DEPTHS, strict=False):
        points = {"color": color, "marker": marker, "linestyle": "none", "label": f"{layers} layers"}
        panel.plot(ratio["distance"], ratio.sel(layers=layers), **points)
    panel.set(title=f"(b) deep tangent kernels, {name}", xlabel="distance $|x - x'|$", ylabel=r"kernel / $\kappa$")
    panel.set(xscale="log", yscale="log", ylim=(0.5, 1e3))
    panel.legend()


def size_panel(panel, data):
    errors, rates = data["simulation"], data["rates"]
    shown = {
        "majority vote": (errors["majority"], rates["majority"]),
        "nearest neighbour": (errors["nearest"], rates["nearest"]),
        r"kernel, $\alpha = 2$": (errors["singular"].sel(alpha=float(DIMENSION)), rates["bayes"]),
    }
    for color, marker, (label, (samples, line)) in zip(ts.study.PALETTE, "so^", shown.items(), strict=False):
        panel.axhline(100 * float(line.mean()), color=color, linestyle="--")
        ts.study.points(panel, 100 * samples, fmt=marker, color=color, label=label)
    panel.set(title="(c) three rules; dashed: limits", xlabel="training inputs $n$", ylabel="error (%)", xscale="log")
    ts.study.plain_ticks(panel.xaxis, errors["size"].values)
    panel.set_ylim(8, 56)
    panel.legend(loc="upper right")


def alpha_panel(panel, data):
    errors, rates = data["simulation"], data["rates"]
    panel.axhline(100 * float(rates["bayes"].mean()), color="black", linestyle=":", label="least error")
    panel.axvline(DIMENSION, color="0.7", linewidth=0.7)
    for color, size in zip(ts.study.PALETTE, errors["size"].values[::-1][:3], strict=False):
        style = {"fmt": "o-", "color": color, "linewidth": 0.7, "label": f"$n = {size}$"}
        ts.study.points(panel, 100 * errors["singular"].sel(size=size), **style)
    panel.set(title="(d) singular kernels", xlabel=r"exponent $\alpha$", ylabel="error (%)", xscale="log")
    ts.study.plain_ticks(panel.xaxis, ALPHAS)
    panel.legend()


# %%
if __name__ == "__main__":
    ts.study.set_up()
    data = simulate(PRESETS["smoke"])
    draw(data)
    print(*claims(data), sep="\n")
