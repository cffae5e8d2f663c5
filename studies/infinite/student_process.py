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
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from scipy import stats
from sklearn.datasets import load_diabetes

import theorysim as ts

TITLE = "Networks with a random readout scale"
SOURCES = ("arXiv:2107.01408",)


class Preset(NamedTuple):
    """Widths; batches of networks and networks in each; data sets for the calibration; splits of the real data."""

    widths: tuple[int, ...]
    batches: int
    networks: int
    data_sets: int
    splits: int


PRESETS = {
    "smoke": Preset((4, 8, 16), batches=8, networks=8192, data_sets=400, splits=8),
    "laptop": Preset((1, 2, 4, 8, 16, 32), batches=16, networks=2**15, data_sets=4000, splits=100),
    "paper": Preset((1, 2, 4, 8, 16, 32, 64), batches=32, networks=2**18, data_sets=100_000, splits=1000),
}
SHAPE, RATE = 2.0, 2.0
TRAIN, TEST, WIDTH = 16, 4, 512  # of the calibration: data from networks of this width
HIDDEN = {"weight_var": 2.0, "bias_var": 0.1}
NETWORK = {"depth": 1, "weight_var": jnp.array([2.0, 1.0]), "bias_var": jnp.array([0.1, 0.0])}
OUTLIERS = (0.0, 0.04, 0.1, 0.2)
DATA = 50  # for training, and as many for the test, of the real data
PROCESSES = {"student": "t process", "gaussian": "Gaussian process"}
OUTPUT = 0.72  # in units of its scale: where the distribution function of finite networks is furthest from its limit
LIMIT = stats.t(2 * SHAPE)
LAWS = {"student": stats.t(2 * SHAPE + TRAIN), "gaussian": stats.norm()}  # of an output, as predicted, over its scale


# %% [markdown]
# ## Outputs, intervals, and real data with outliers


# %%
def outputs_of(key, x, width, most):
    """Outputs at x of one network, the first `width` of `most` neurons of erf in its hidden layer; and their scale."""
    dim, freedom = x.shape[1], int(2 * SHAPE)
    normal = jax.random.normal(key, ((dim + 2) * most + freedom,), jnp.float32)  # one draw: each takes time to compile
    hidden, bias, readout, scale = jnp.split(normal, np.cumsum([dim * most, most, most]))
    z = jnp.sqrt(HIDDEN["weight_var"] / dim) * x @ hidden.reshape(dim, most) + jnp.sqrt(HIDDEN["bias_var"]) * bias[None]
    # Half a chi-square of 2 shape degrees of freedom is Gamma(shape).
    std = jnp.sqrt(RATE / (jnp.square(scale).sum() / 2) / width)
    return std * ts.infinite.erf(z) @ jnp.where(jnp.arange(most) < width, readout, 0.0)


def simulate(preset):
    x = jax.random.normal(jax.random.key(1), (TRAIN + TEST, 4))
    nngp = ts.infinite.fully_connected(ts.infinite.erf, x, **NETWORK).nngp
    blocks = nngp[:TRAIN, :TRAIN], nngp[TRAIN:, :TRAIN], nngp[TRAIN:, TRAIN:]
    variance = ts.infinite.nngp_variance(ts.infinite.erf, x[:2], depth=1, **HIDDEN)[0, 0]
    kernel_variance = variance / (HIDDEN["weight_var"] * nngp[0, 0]) ** 2

    def law(output):
        density = partial(jax.scipy.stats.t.pdf, df=2 * SHAPE)
        return {"correction": ts.infinite.cdf_correction(density, output, kernel_variance=kernel_variance)}

    def outputs(width, key):
        def output(key):
            return outputs_of(key, x[:1], width, preset.widths[-1])[0]

        f = jax.lax.map(output, jax.random.split(key, preset.networks), batch_size=4096)
        return {"output": f / jnp.sqrt(nngp[0, 0] * RATE / SHAPE)}

    def calibration(data_set, key):  # noqa: ARG001 (the data set is the key)
        """How many standard deviations each test output lies from its prediction, under both processes."""
        f = outputs_of(key, x, WIDTH, WIDTH)
        student = ts.infinite.posterior.student(*blocks, f[:TRAIN], shape=SHAPE, rate=RATE)
        gaussian = ts.infinite.posterior.gaussian(*blocks, f[:TRAIN])
        error = f[TRAIN:] - student.mean
        return {
            "student": error / jnp.sqrt(jnp.diag(student.scale)),
            "gaussian": error / jnp.sqrt(jnp.diag(gaussian.covariance) * RATE / (SHAPE - 1)),
        }

    theory = ts.sweep(law, ts.Grid(output=np.array([OUTPUT])))
    widths, data_sets = ts.Grid(width=np.array(preset.widths)), ts.Grid(data_set=np.arange(preset.data_sets))
    random = {"key": jax.random.key(2), "repeats": preset.batches}
    networks = ts.sweep(outputs, widths, dims={"output": ["network"]}, **random)
    tests = {"student": ["test"], "gaussian": ["test"]}
    calibrated = ts.sweep(calibration, data_sets, key=jax.random.key(3), dims=tests)
    return ts.study.tree(
        theory=theory.assign_attrs(kernel_variance=float(kernel_variance)),
        simulation=networks,
        calibration=calibrated.rename(data_set="repeat"),
        diabetes=diabetes(preset.splits),
    )


def diabetes(splits):
    """Log density of test data, where a fraction of all data, training and test, is replaced by outliers."""
    x, y = (jnp.asarray((part - part.mean(0)) / part.std(0)) for part in load_diabetes(return_X_y=True))
    nngp = ts.infinite.fully_connected(ts.infinite.erf, x, **NETWORK).nngp
    noisy = nngp / jnp.diag(nngp).mean() + jnp.eye(len(x))  # as much noise as signal, both of one scale

    def split(outliers, key):
        order, dirt = jax.random.split(key)
        index = jax.random.permutation(order, len(x))
        train, test = index[:DATA], index[DATA : 2 * DATA]
        bad = jnp.tile(jnp.arange(DATA) < outliers * DATA, 2)
        dirty = jnp.where(bad, 8 * jax.random.normal(dirt, bad.shape), y[index[: 2 * DATA]])
        seen, unseen = dirty[:DATA], dirty[DATA:]
        blocks = noisy[train][:, train], noisy[test][:, train], noisy[test][:, test]
        # Both start from a typical scale of a half, the part of the variance that is noise.
        student = ts.infinite.posterior.student(*blocks, seen, shape=SHAPE, rate=SHAPE / 2)
        gaussian = ts.infinite.posterior.gaussian(*blocks, seen)
        scale, std = jnp.sqrt(jnp.diag(student.scale)), jnp.sqrt(jnp.diag(gaussian.covariance) / 2)
        t, normal = jax.scipy.stats.t, jax.scipy.stats.norm
        return {
            "student": t.logpdf(unseen, student.degrees_of_freedom, student.mean, scale).mean(),
            "gaussian": normal.logpdf(unseen, gaussian.mean, std).mean(),
        }

    return ts.sweep(split, ts.Grid(outliers=np.array(OUTLIERS)), key=jax.random.key(4), repeats=splits, lanes=8)


# %% [markdown]
# ## What must agree
#
# A network's own kernel is $r K$, where $r$ has mean 1 and a variance of $v / N$: its outputs have the distribution
# function $\mathrm{E} F(x / \sqrt r) = F(x) + \frac{v}{8 N} (3 x F'(x) + x^2 F''(x)) + O(N^{-2})$.


# %%
def claims(data):
    outputs, theory = data["simulation"]["output"], data["theory"]
    far = 3 * LIMIT.std()
    yield ts.study.limit_agrees(
        "tails",
        "Student's t gives the probability of an output beyond three standard deviations, extrapolated in 1 / width "
        f"(a Gaussian: {2 * stats.norm.sf(3):.4f})",
        2 * LIMIT.sf(far),
        (abs(outputs.sel(width=slice(8, None))) > far).mean("network"),
        span=(0, 1),
    )
    predicted, width = theory["correction"].item(), 8
    yield ts.study.agrees(
        "first order in 1 / width",
        f"the fluctuation of kernels at width {width} gives width times the deviation of the distribution function "
        f"from Student's t, at an output of {OUTPUT}",
        predicted,
        ts.study.mean_estimate(width * deviation(outputs.sel(width=width))),
        next_order=abs(predicted) * theory.attrs["kernel_variance"] / width,
        why="the next order, smaller by the relative variance of the kernel",
    )
    for process, name in PROCESSES.items():
        inside = abs(data["calibration"][process]) < LAWS[process].ppf(0.75)
        yield ts.study.agrees(
            f"50 % interval, {process}",
            f"probability that an output of a network lies in the 50 % interval of its {name}",
            coverage(process, 0.5),
            ts.study.mean_estimate(inside.mean("test")),
            next_order=1 / WIDTH,
            why="1 / width of the networks",
            span=(0, 1),
        )
    dirty = data["diabetes"].to_dataset().sel(outliers=0.1)
    yield ts.study.lies_below(
        "diabetes with outliers",
        "diabetes data, one outlier in ten: mean log density of test data, Gaussian process below t process",
        dirty["gaussian"],
        dirty["student"],
    )


def coverage(process, level):
    """Of central intervals: exact for the t process; the Gaussian one has the mean scale of the prior."""
    gaussian = 2 * LIMIT.cdf(stats.norm.ppf((1 + level) / 2) * np.sqrt(SHAPE / (SHAPE - 1))) - 1
    return {"student": level, "gaussian": gaussian}[process]


def deviation(outputs):
    """Of each batch's distribution function from the t law at OUTPUT, by symmetry also from -OUTPUT."""
    return ((outputs <= OUTPUT).mean("network") + (outputs > -OUTPUT).mean("network")) / 2 - LIMIT.cdf(OUTPUT)


# %% [markdown]
# ## Theory as lines, networks as points


# %%
def draw(data):
    panels = law_panel, width_panel, calibration_panel, outlier_panel
    return {"student_process": ts.study.drawn(data, *panels, height_to_width=0.72)}


def law_panel(panel, data):
    outputs = data["simulation"]["output"]
    x = np.linspace(-7, 7, 400)
    panel.plot(x, LIMIT.pdf(x), color=ts.study.PALETTE[0], label="t law")
    panel.plot(x, stats.norm.pdf(x, scale=LIMIT.std()), color="0.6", linestyle="--", label="Gaussian of its variance")
    for color, index, marker in ((ts.study.PALETTE[1], 0, "s"), (ts.study.PALETTE[2], -1, "o")):
        batches = outputs.isel(width=index)
        style = {"fmt": marker, "color": color, "linewidth": 0.7, "label": f"width {int(batches['width'])}"}
        ts.study.density_points(panel, batches, np.linspace(-7, 7, 36), **style)
    panel.set(title="(a) outputs of random networks", xlabel="output, in units of its scale", ylabel="density")
    panel.set(yscale="log", ylim=(3e-4, 0.9))
    panel.legend()


def width_panel(panel, data):
    outputs = data["simulation"]["output"]
    width = outputs["width"].values
    first_order = data["theory"]["correction"].item() / width
    panel.plot(width, first_order, color=ts.study.PALETTE[0], label="first order in $1/N$")
    ts.study.points(panel, deviation(outputs), color=ts.study.PALETTE[1], label="networks")
    panel.set(title=f"(b) deviation from the t law, at output {OUTPUT}", ylabel="deviation of the cdf", yscale="log")
    ts.study.width_axis(panel, width)
    panel.legend()


def calibration_panel(panel, data):
    level = np.linspace(0.02, 0.98, 49)
    shown = xr.DataArray(level[::4], {"level": level[::4]})
    for color, (process, law) in zip(ts.study.PALETTE, LAWS.items(), strict=False):
        panel.plot(level, coverage(process, level), color=color)
        inside = abs(data["calibration"][process]) < shown.copy(data=law.ppf((1 + shown) / 2))
        ts.study.points(panel, inside.mean("test"), color=color, label=PROCESSES[process])
    panel.set(title=f"(c) calibration, networks of width {WIDTH}", xlabel="level of the interval")
    panel.set(ylabel="test outputs inside (fraction)")
    panel.legend()


def outlier_panel(panel, data):
    diabetes = data["diabetes"]
    percent = 100 * diabetes["outliers"]
    for color, (process, label) in zip(ts.study.PALETTE, PROCESSES.items(), strict=False):
        ts.study.points(panel, diabetes[process], percent, fmt="o-", color=color, linewidth=0.7, label=label)
    panel.set(title="(d) diabetes progression", xlabel="outliers in the data (%)", xticks=percent)
    panel.set(ylabel="mean log density of test data")
    panel.legend()


# %%
if __name__ == "__main__":
    ts.study.set_up()
    data = simulate(PRESETS["smoke"])
    draw(data)
    print(*claims(data), sep="\n")
