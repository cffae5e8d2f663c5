"""A common random scale of the readout weights turns a wide network from a Gaussian process into Student's t: its law
is reached like one over the width, and its intervals cover where those of the Gaussian process do not.
"""

# %% [markdown]
# # Networks with a random readout scale
#
# Give all readout weights of a network one variance, drawn from an inverse gamma law. Given this scale, the outputs of
# a wide network are Gaussian with covariance scale $\times K$; over scales they follow a multivariate t law of
# $2\,\mathrm{shape}$ degrees of freedom. Its posterior after $n$ data has the mean of the Gaussian process, and a
# covariance that grows with the data's own size $y^\top K^{-1} y$: outlying data widen it.

# %%
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from scipy import stats
from sklearn.datasets import load_diabetes

import theorysim as ts
from theorysim.quadrature import gaussian_mean

TITLE = "Networks with a random readout scale"
SOURCES = ("arXiv:2107.01408",)


class Preset(NamedTuple):
    """Widths, batches of networks and networks in each; data sets for the calibration; splits of the real data."""

    widths: tuple[int, ...]
    batches: int
    networks: int
    data_sets: int
    splits: int


PRESETS = {
    "smoke": Preset((2, 8, 64), batches=8, networks=4096, data_sets=400, splits=24),
    "laptop": Preset((1, 2, 4, 8, 16, 64), batches=16, networks=2**15, data_sets=4000, splits=100),
    "paper": Preset((1, 2, 4, 8, 16, 256), batches=32, networks=2**18, data_sets=100_000, splits=1000),
}
SHAPE, RATE = 2.0, 2.0
TRAIN, TEST, WIDTH = 16, 4, 512  # of the calibration: data from networks of this width
NETWORK = {"depth": 1, "weight_var": jnp.array([2.0, 1.0]), "bias_var": jnp.array([0.1, 0.0])}
LEVELS = np.linspace(0.02, 0.98, 49)
OUTLIERS = (0.0, 0.05, 0.1, 0.2)


# %% [markdown]
# ## Outputs, intervals, and real data with outliers


# %%
def network(key, x, width):
    """Outputs at x of one network with one hidden layer of erf, and the random scale."""
    hidden, bias, readout, scale = jax.random.split(key, 4)
    weight_var, bias_var = NETWORK["weight_var"][0], NETWORK["bias_var"][0]
    z = jnp.sqrt(weight_var / x.shape[1]) * x @ jax.random.normal(hidden, (x.shape[1], width))
    features = ts.infinite.erf(z + jnp.sqrt(bias_var) * jax.random.normal(bias, (1, width)))
    std = jnp.sqrt(RATE / jax.random.gamma(scale, SHAPE))
    return std / np.sqrt(width) * features @ jax.random.normal(readout, (width,))


def simulate(preset):
    x = jax.random.normal(jax.random.key(1), (TRAIN + TEST, 4))
    nngp = ts.infinite.fully_connected(ts.infinite.erf, x, **NETWORK).nngp
    blocks = nngp[:TRAIN, :TRAIN], nngp[TRAIN:, :TRAIN], nngp[TRAIN:, TRAIN:]

    def outputs(width, key):
        keys = jax.random.split(key, preset.networks)
        f = jax.lax.map(lambda key: network(key, x[:1], width)[0], keys, batch_size=4096)
        return {"output": f / jnp.sqrt(nngp[0, 0] * RATE / SHAPE)}

    def calibration(data_set, key):  # noqa: ARG001 (the data set is the key)
        """How many standard deviations each test output lies from its prediction, under both processes."""
        f = network(key, x, WIDTH)
        student = ts.infinite.posterior.student(*blocks, f[:TRAIN], shape=SHAPE, rate=RATE)
        gaussian = ts.infinite.posterior.gaussian(*blocks, f[:TRAIN])
        error = f[TRAIN:] - student.mean
        return {
            "student": error / jnp.sqrt(jnp.diag(student.scale)),
            "gaussian": error / jnp.sqrt(jnp.diag(gaussian.covariance) * RATE / (SHAPE - 1)),
        }

    def coverage(level):
        """Of central intervals: exact for the t process, and for the Gaussian one at the mean scale of the prior."""
        z = jax.scipy.special.ndtri((1 + level) / 2) * jnp.sqrt(SHAPE / (SHAPE - 1))
        # cdf of t with 4 degrees of freedom
        s = z / jnp.sqrt(4 + z**2)
        return {"student": level, "gaussian": s * (3 - s**2) / 2}

    networks = ts.sweep(
        outputs,
        ts.Grid(width=ts.static(*preset.widths)),
        key=jax.random.key(2),
        repeats=preset.batches,
        dims={"output": ["network"]},
    )
    calibrated = ts.sweep(
        calibration,
        ts.Grid(data_set=np.arange(preset.data_sets)),
        key=jax.random.key(3),
        dims={"student": ["test"], "gaussian": ["test"]},
    )
    lines = ts.sweep(coverage, ts.Grid(level=LEVELS)).assign_attrs(spread=spread(x[:1]))
    return xr.DataTree.from_dict(
        {
            "theory": lines,
            "simulation": networks,
            "calibration": calibrated,
            "diabetes": diabetes(preset.splits),
        }
    )


def spread(x):
    """Var(phi^2) / (E phi^2)^2 of a neuron: N times the variance of the kernel of networks of width N."""
    erf = ts.infinite.erf
    q = ts.infinite.fully_connected(erf, x, depth=0, weight_var=2.0, bias_var=0.1).nngp[0, 0]
    square, fourth = (gaussian_mean(lambda z, p=p: erf(z) ** p, q) for p in (2, 4))
    return float(fourth / square**2 - 1)


def diabetes(splits):
    """Log density of test data, where a share of all data, training and test, is replaced by outliers."""
    data, targets = load_diabetes(return_X_y=True)
    x = jnp.asarray((data - data.mean(0)) / data.std(0))
    y = jnp.asarray((targets - targets.mean()) / targets.std())
    nngp = ts.infinite.fully_connected(ts.infinite.erf, x, **NETWORK).nngp
    noisy = nngp / jnp.diag(nngp).mean() + jnp.eye(len(x))  # as much noise as signal, both of one scale

    def split(outliers, key):
        order, dirt = jax.random.split(key)
        index = jax.random.permutation(order, len(x))
        train, test = index[:100], index[100:200]
        bad = jnp.arange(200) % 100 < outliers * 100
        dirty = jnp.where(bad, 8 * jax.random.normal(dirt, (200,)), y[index[:200]])
        seen, unseen = dirty[:100], dirty[100:]
        blocks = noisy[train][:, train], noisy[test][:, train], noisy[test][:, test]
        # Both start from a typical scale of a half, the share of the variance that is noise.
        student = ts.infinite.posterior.student(*blocks, seen, shape=SHAPE, rate=SHAPE / 2)
        gaussian = ts.infinite.posterior.gaussian(*blocks, seen)
        return {
            "student": t_log_density(unseen, student.mean, jnp.diag(student.scale), student.degrees_of_freedom).mean(),
            "gaussian": jax.scipy.stats.norm.logpdf(
                unseen, gaussian.mean, jnp.sqrt(jnp.diag(gaussian.covariance) / 2)
            ).mean(),
        }

    return ts.sweep(split, ts.Grid(outliers=np.array(OUTLIERS)), key=jax.random.key(4), repeats=splits, lanes=8)


def t_log_density(y, mean, scale, degrees_of_freedom):
    return jax.scipy.stats.t.logpdf(y, degrees_of_freedom, mean, jnp.sqrt(scale))


# %% [markdown]
# ## What must agree
#
# The Kolmogorov-Smirnov distance of $M$ outputs from their own law is $.87 / \sqrt M$ on average, and follows
# Kolmogorov's law. A network's own kernel is $r K$, where $r$ has mean 1 and a variance of $v / N$: its outputs have
# the distribution function $\mathrm{E} F(x / \sqrt r) = F(x) + \frac{v}{8 N} (3 x F'(x) + x^2 F''(x)) + O(N^{-2})$.


# %%
def claims(data):
    outputs = data["simulation"]["output"]
    wide = outputs.isel(width=-1).values.ravel()
    scaled = distance(wide, limit().cdf) * np.sqrt(wide.size)
    yield ts.study.Claim(
        f"outputs at width {int(outputs['width'][-1])}: Kolmogorov-Smirnov distance from the t law, times root samples",
        predicted=float(stats.kstwobign.mean()),
        measured=float(scaled),
        tolerance=float(stats.kstwobign.ppf(0.9973) - stats.kstwobign.mean()),
        why="Kolmogorov's law, to three sigma",
    )
    gaussian = stats.norm(scale=np.sqrt(SHAPE / (SHAPE - 1)))
    x = np.linspace(-8, 8, 20001)
    yield ts.study.Claim(
        "their distance from a Gaussian of the same variance",
        predicted=float(abs(limit().cdf(x) - gaussian.cdf(x)).max()),
        measured=float(distance(wide, gaussian.cdf)),
        tolerance=float(stats.kstwobign.ppf(0.9973) / np.sqrt(wide.size)),
        why="distances differ by no more than that of the sample from its own law, to three sigma",
    )
    width, at = outputs["width"].values[outputs.sizes["width"] // 2], farthest(data)
    measured = deviation(outputs.sel(width=width).values, at)
    yield ts.study.Claim(
        f"distribution function at width {width}, where it deviates most from the t law: deviation times width",
        predicted=float(correction(data, at)),
        measured=float(width * measured.mean()),
        tolerance=float(
            3 * width * measured.std(ddof=1) / np.sqrt(measured.size)
            + abs(correction(data, at)) * data["theory"].attrs["spread"] / width
        ),
        why="three standard errors over batches, and the spread of a neuron over the width for the next order",
    )
    calibration = data["calibration"]
    for process, law in (("student", stats.t(2 * SHAPE + TRAIN)), ("gaussian", stats.norm())):
        inside = (abs(calibration[process]) < law.ppf(0.75)).mean("test").values
        predicted = data["theory"][process].interp(level=0.5, method="cubic")
        yield ts.study.Claim(
            f"share of outputs in the 50 % interval of the {process} process",
            predicted=float(predicted),
            measured=float(inside.mean()),
            tolerance=float(3 * inside.std(ddof=1) / np.sqrt(inside.size) + 1 / WIDTH),
            why="three standard errors over data sets, and one over the width of the networks",
        )
    better = (data["diabetes"]["student"] > data["diabetes"]["gaussian"]).sel(outliers=0.1)
    yield ts.study.Claim(
        "diabetes data, one in ten an outlier: share of splits that the t process predicts better",
        predicted=1,
        measured=float(better.mean()),
        tolerance=0.05,
        why="a sign, in all splits but one of twenty",
    )


def limit():
    return stats.t(2 * SHAPE)


def correction(data, x):
    """N times the deviation of networks of width N from the t law: v (3 x F' + x^2 F'') / 8."""
    nu, density = 2 * SHAPE, limit().pdf(x)
    slope = -density * (nu + 1) * x / (nu + x**2)
    return data["theory"].attrs["spread"] * (3 * x * density + x**2 * slope) / 8


def farthest(data):
    grid = np.linspace(0.01, 8, 4001)
    return float(grid[np.argmax(abs(correction(data, grid)))])


def deviation(batches, x):
    """Of each batch's distribution function from the t law at x, by symmetry also from -x."""
    return ((batches <= x).mean(-1) + (batches > -x).mean(-1)) / 2 - limit().cdf(x)


def distance(sample, cdf):
    return stats.kstest(sample, cdf).statistic


# %% [markdown]
# ## Theory as lines, networks as points


# %%
def draw(data):
    figure, axes = plt.subplots(2, 2, figsize=ts.study.page(2, 2, 0.72))
    law_panel(axes[0, 0], data["simulation"]["output"])
    width_panel(axes[0, 1], data)
    calibration_panel(axes[1, 0], data)
    outlier_panel(axes[1, 1], data["diabetes"])
    return {"student_process": figure}


def law_panel(panel, outputs):
    x = np.linspace(-7, 7, 400)
    panel.plot(x, limit().pdf(x), color=ts.study.PALETTE[0], label="t law")
    gaussian = stats.norm(scale=np.sqrt(SHAPE / (SHAPE - 1)))
    panel.plot(x, gaussian.pdf(x), color="0.6", linestyle="--", label="Gaussian of its variance")
    edges = np.linspace(-7, 7, 36)
    centres = (edges[1:] + edges[:-1]) / 2
    for color, index, marker in ((ts.study.PALETTE[1], 0, "s"), (ts.study.PALETTE[2], -1, "o")):
        batches = outputs.isel(width=index).values
        density = np.stack([np.histogram(b, edges)[0] / (b.size * (edges[1] - edges[0])) for b in batches])
        error = density.std(0, ddof=1) / np.sqrt(len(density))
        style = {"fmt": marker, "color": color, "linewidth": 0.7, "label": f"width {int(outputs['width'][index])}"}
        panel.errorbar(centres, density.mean(0), error, **style)
    panel.set(title="(a) outputs of random networks", xlabel="output, in units of its scale", ylabel="density")
    panel.set(yscale="log", ylim=(3e-4, 0.9))
    panel.legend()


def width_panel(panel, data):
    outputs, at = data["simulation"]["output"], farthest(data)
    width = outputs["width"].values
    grid = np.geomspace(width[0], width[-1], 100)
    panel.plot(grid, abs(correction(data, at)) / grid, color=ts.study.PALETTE[0], label="first order in $1/N$")
    batches = deviation(outputs.transpose("width", "repeat", "network").values, at)
    error = batches.std(1, ddof=1) / np.sqrt(batches.shape[1])
    panel.errorbar(width, abs(batches.mean(1)), error, fmt="o", color=ts.study.PALETTE[1], label="networks")
    panel.set(title=f"(b) deviation from the t law, at output {at:.2f}", xlabel="width $N$")
    panel.set(ylabel="deviation of the cdf")
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set_xticks(width, [f"{w}" for w in width])
    panel.legend()


def calibration_panel(panel, data):
    lines, points = data["theory"].to_dataset(), data["calibration"]
    shown = lines["level"].values[::4]
    for color, process, law in (
        (ts.study.PALETTE[0], "student", stats.t(2 * SHAPE + TRAIN)),
        (ts.study.PALETTE[1], "gaussian", stats.norm()),
    ):
        panel.plot(lines["level"], lines[process], color=color)
        inside = (abs(points[process].values)[..., None] < law.ppf((1 + shown) / 2)).mean(1)
        error = inside.std(0, ddof=1) / np.sqrt(len(inside))
        label = {"student": "t process", "gaussian": "Gaussian process"}[process]
        panel.errorbar(shown, inside.mean(0), error, fmt="o", color=color, label=label)
    panel.set(title=f"(c) calibration, networks of width {WIDTH}", xlabel="level of the interval")
    panel.set(ylabel="share of test outputs inside")
    panel.legend()


def outlier_panel(panel, diabetes):
    for color, process, label in (
        (ts.study.PALETTE[0], "student", "t process"),
        (ts.study.PALETTE[1], "gaussian", "Gaussian process"),
    ):
        mean, error = ts.study.mean_and_error(diabetes[process])
        panel.errorbar(100 * diabetes["outliers"], mean, error, fmt="o-", color=color, linewidth=0.7, label=label)
    panel.set(title="(d) diabetes progression", xlabel="outliers in the data (%)")
    panel.set(ylabel="log density of a test datum")
    panel.legend()


# %%
if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    plt.rcParams.update(ts.study.style())
    data = simulate(PRESETS["smoke"])
    draw(data)
