"""One data set, four theories of a wide network: in a Gaussian process and under the tangent kernel its features keep
the kernel they start with; in mean-field theory and in a deep kernel machine they turn towards the targets.
"""

# %% [markdown]
# # What wide networks make of digits
#
# A few images of two digits pass through networks of two hidden layers of erf. The kernel of the last layer's
# features, $\Phi_{ab} = \langle \phi(h_a)\, \phi(h_b) \rangle$, is that of the Gaussian process at the start and in
# the lazy limit $\gamma_0 \to 0$, where the tangent kernel trains the outputs. Gradient descent moves it at
# $\gamma_0 > 0$, and so does the posterior of a Bayesian network whose layers are $\nu$ times as wide as its output:
# a deep kernel machine, if $N$ linear units stand between layers of infinitely many neurons (a deep Gaussian process).
# With $N$ neurons instead, the posterior of their preactivations is not Gaussian, and the limit another.
# Its alignment with the targets is $y^\top \Phi\, y\, /\, (|\Phi|\, |y|^2)$.

# %%
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from sklearn.datasets import load_digits

import theorysim as ts

TITLE = "What wide networks make of digits"
SOURCES = ("arXiv:1806.07572", "arXiv:2205.09653", "arXiv:2108.13097")


class Preset(NamedTuple):
    """Width and number of trained networks; samples and batches of mean-field theory; of the posterior: what its
    layers are made of, their widths, and the draws of each chain.
    """

    width: int
    repeats: int
    samples: int
    batches: int
    units: tuple[str, ...]
    widths: tuple[int, ...]
    draws: int


PRESETS = {
    "smoke": Preset(width=128, repeats=16, samples=128, batches=4, units=("linear",), widths=(64,), draws=100),
    "laptop": Preset(
        width=256, repeats=32, samples=512, batches=4, units=("linear", "erf"), widths=(32, 128), draws=150
    ),
    "paper": Preset(
        width=2048, repeats=128, samples=8192, batches=16, units=("linear", "erf"), widths=(64, 512), draws=2000
    ),
}
IMAGES, STEPS, LEARNING_RATE, NOISE = 6, 6, 1.0, 0.05
LAZY, GAMMA0 = 0.05, (0.05, 0.2, 0.5, 1.0, 2.0)
NU = np.geomspace(0.1, 1e4, 26)
SAMPLED, CHAINS, WARMUP = NU[[4, 7, 10, 13]], 8, 50


def digits():
    """As many threes as eights, one after the other: centred images of mean square 1; targets +1 and -1."""
    images, labels = load_digits(return_X_y=True)
    images = images - images.mean(0)
    chosen = np.concatenate([np.flatnonzero(labels == digit)[: IMAGES // 2] for digit in (3, 8)])
    x = images[chosen]
    x = x / np.sqrt((x**2).mean(1, keepdims=True))
    return jnp.asarray(x), jnp.asarray(np.repeat([1.0, -1.0], IMAGES // 2))


def covariance(gram):
    """Of the features, from that of the preactivations."""
    variance = jnp.diag(gram)
    return ts.infinite.erf.dual(variance[:, None], variance[None, :], gram)


def of_linear_units(f):
    return covariance(f @ f.T / f.shape[1])


def of_neurons(f):
    features = ts.infinite.erf(f)
    return features @ features.T / f.shape[1]


def alignment(kernel, targets):
    return targets @ kernel @ targets / (jnp.linalg.norm(kernel) * (targets @ targets))


# %% [markdown]
# ## Four theories, and networks


# %%
def simulate(preset):
    x, y = digits()
    erf = ts.infinite.erf
    training = {"depth": 2, "learning_rate": LEARNING_RATE, "steps": STEPS}
    key = jax.random.key(0)

    def observed(trajectory):
        start, end = (trajectory.features[-1, t, :, t] for t in (0, -1))
        aligned = {"alignment": alignment(end, y), "initial": alignment(start, y)}
        return {"loss": trajectory.loss, "kernel": end, **aligned}

    def mean_field(gamma0, batch):
        own = jax.random.fold_in(key, batch)
        mean = ts.infinite.mup.dmft(
            erf, x, y, gamma0=gamma0, **training, samples=preset.samples, batches=1, key=own
        ).mean
        return observed(mean)

    def network(gamma0, width, key):
        return observed(ts.networks.train_mup(erf, x, y, gamma0=gamma0, **training, width=width, key=key))

    def lazy(step):
        kernels = ts.infinite.fully_connected(erf, x, depth=2)
        modes = ts.infinite.dynamics.modes(kernels.ntk)
        left = y - ts.infinite.dynamics.response(modes, kernels.ntk, step=step, learning_rate=LEARNING_RATE) @ y
        return {
            "loss": jnp.square(left).mean() / 2,
            "kernel": kernels.nngp,
            "alignment": alignment(kernels.nngp, y),
        }

    def bayesian(nu):
        fitted = ts.infinite.deep_kernel.fit(erf, x, y[:, None], depth=2, nu=nu, noise_var=NOISE)
        kernel = covariance(fitted.grams[-1])
        found = {"gram": fitted.grams[-1], "alignment": alignment(kernel, y), "converged": fitted.converged}
        return {"kernel": kernel, **found}

    def chain(nu, units, width, key):
        kernel = {"linear": of_linear_units, "erf": of_neurons}[units]
        sampled = ts.networks.sample_posterior(
            kernel,
            x,
            y[:, None],
            width=width,
            depth=2,
            nu=nu,
            noise_var=NOISE,
            key=key,
            draws=preset.draws,
            warmup=WARMUP,
            step=0.18,
            leaps=6,
        )
        aligned = jax.vmap(lambda kernel: alignment(kernel, y))(sampled.kernels)
        return {
            "gram": sampled.grams.mean(0),
            "alignment": aligned.mean(),
            "variance": aligned.var(),
            "acceptance": sampled.acceptance,
        }

    dims = {"loss": ["step"], "kernel": ["image", "other"]}
    steps = {"step": np.arange(STEPS + 1)}
    grid = np.array(GAMMA0)
    theory = ts.sweep(
        mean_field, ts.Grid(gamma0=grid, batch=np.arange(preset.batches)), dims=dims, coords=steps, lanes=8
    )
    networks = ts.sweep(
        network,
        ts.Grid(gamma0=grid, width=ts.static(preset.width)),
        key=jax.random.key(1),
        repeats=preset.repeats,
        dims=dims,
        coords=steps,
        lanes=8,
    )
    square, gram = ({name: ["image", "other"]} for name in ("kernel", "gram"))
    posterior = ts.sweep(
        chain,
        ts.Grid(units=ts.static(*preset.units), width=ts.static(*preset.widths), nu=SAMPLED),
        key=jax.random.key(2),
        repeats=CHAINS,
        dims=gram,
        lanes=CHAINS * len(SAMPLED),
    )
    return xr.DataTree.from_dict(
        {
            "theory": theory.rename(batch="repeat"),
            "lazy": ts.sweep(lazy, ts.Grid(step=steps["step"]), dims=square),
            "bayesian": ts.sweep(bayesian, ts.Grid(nu=NU), dims=square | gram, lanes=8),
            "posterior": posterior,
            "simulation": networks.isel(width=0),
        }
    )


# %% [markdown]
# ## What must agree


# %%
def claims(data):
    theory, networks, lazy = data["theory"], data["simulation"], data["lazy"]
    start = float(lazy["alignment"][0])
    width = int(networks["width"])
    mean, error = ts.study.mean_and_error(networks["initial"].sel(gamma0=LAZY))
    yield ts.study.Claim(
        "alignment of the features with the targets at the start: networks, and the Gaussian process",
        predicted=start,
        measured=float(mean),
        tolerance=3 * float(error) + 1 / width,
        why="three standard errors, and one over the width",
    )
    mean, error = ts.study.mean_and_error(networks["loss"].sel(gamma0=LAZY).mean("step"))
    yield ts.study.Claim(
        f"loss at gamma0 = {LAZY:g}, mean over steps: networks, and the tangent kernel",
        predicted=float(lazy["loss"].mean()),
        measured=float(mean),
        tolerance=3 * float(error) + float(lazy["loss"].mean()) * (LAZY**2 + 1 / width),
        why="three standard errors; relative, the growth of kernels gamma0^2 and one over the width",
    )
    for gamma0 in GAMMA0[1:]:
        predicted, spread = ts.study.mean_and_error(theory["alignment"].sel(gamma0=gamma0))
        mean, error = ts.study.mean_and_error(networks["alignment"].sel(gamma0=gamma0))
        yield ts.study.Claim(
            f"alignment after training at gamma0 = {gamma0:g}: networks, and mean-field theory",
            predicted=float(predicted),
            measured=float(mean),
            tolerance=3 * float(np.hypot(error, spread)) + 1 / width,
            why="three standard errors, of networks and theory, and one over the width",
        )
    yield from bayesian_claims(data["bayesian"], data["posterior"].sel(units="linear"))
    gain = data["bayesian"]["alignment"] - start
    yield ts.study.Claim(
        "deep kernel machine: gain of alignment times nu, over a decade at large nu",
        predicted=1,
        measured=float(gain[-1] * NU[-1] / (gain[-6] * NU[-6])),
        tolerance=float(10 / NU[-6] + 1e-2),
        why="the gain is like 1 / nu, up to the next order, and the search's own error",
    )


def bayesian_claims(theory, posterior):
    for width in posterior["width"].values:
        for nu in SAMPLED:
            of, exact = posterior.sel(width=width, nu=nu), theory.sel(nu=nu)
            mean, error = ts.study.mean_and_error(of["gram"])
            scale = float(np.sqrt((exact["gram"] ** 2).sum()))
            yield ts.study.Claim(
                f"nu = {nu:.2g}: distance of the mean Gram matrix of {width} linear units from a deep kernel machine's",
                predicted=0,
                measured=float(np.sqrt(((mean - exact["gram"]) ** 2).sum())) / scale,
                tolerance=3 * float(np.sqrt((error**2).sum())) / scale + (IMAGES + 1) / width,
                why=f"three standard errors over {effective(of):.0f} effective draws, and (images + 1) / width, "
                "by which the prior's Gram matrices fluctuate",
            )
            mean, error = ts.study.mean_and_error(of["alignment"])
            yield ts.study.Claim(
                f"nu = {nu:.2g}: alignment of {width} linear units in the posterior, and of a deep kernel machine",
                predicted=float(exact["alignment"]),
                measured=float(mean),
                tolerance=3 * float(error) + 1 / int(width),
                why="three standard errors, and one over the width",
            )


def effective(chains):
    """Draws that are worth as much as those of all chains, by the spread of the chains' means."""
    return float(chains["variance"].mean() / chains["alignment"].var(ddof=1) * CHAINS)


# %% [markdown]
# ## Kernels side by side


# %%
def draw(data):
    figure, axes = plt.subplots(2, 3, figsize=ts.study.page(2, 3, 0.9))
    theory, networks, bayesian = data["theory"], data["simulation"], data["bayesian"]
    rich, small = GAMMA0[-1], bayesian["nu"].values[10]
    shown = (
        ("(a) Gaussian process", data["lazy"]["kernel"][0]),
        (rf"(b) mean field, $\gamma_0 = {rich:g}$", theory["kernel"].sel(gamma0=rich).mean("repeat")),
        (rf"(c) deep kernel, $\nu = {small:.2g}$", bayesian["kernel"].sel(nu=small)),
    )
    for panel, (title, kernel) in zip(axes[0], shown, strict=True):
        scale = np.sqrt(np.diag(kernel))
        picture = panel.imshow(kernel / np.outer(scale, scale), vmin=-1, vmax=1, cmap="RdBu_r")
        panel.set(title=title, xticks=[IMAGES / 4 - 0.5, 3 * IMAGES / 4 - 0.5], yticks=[])
        panel.set_xticklabels(["threes", "eights"])
    figure.colorbar(picture, ax=axes[0], label="cosine", shrink=0.8)
    loss_panel(axes[1, 0], data)
    gamma0_panel(axes[1, 1], theory, networks, data["lazy"])
    nu_panel(axes[1, 2], bayesian, data["posterior"], data["lazy"])
    return {"representation": figure}


def loss_panel(panel, data):
    panel.plot(data["lazy"]["step"], data["lazy"]["loss"], color="black", linestyle="--", label="tangent kernel")
    for color, gamma0 in zip(ts.study.PALETTE, (LAZY, *GAMMA0[-2:]), strict=False):
        mean, _ = ts.study.mean_and_error(data["theory"]["loss"].sel(gamma0=gamma0))
        panel.plot(mean["step"], mean, color=color)
        mean, error = ts.study.mean_and_error(data["simulation"]["loss"].sel(gamma0=gamma0))
        panel.errorbar(mean["step"], mean, error, fmt="o", color=color, label=rf"$\gamma_0 = {gamma0:g}$")
    panel.set(title="(d) training", xlabel="step", ylabel="loss", yscale="log")
    panel.set_ylim(2e-6, 1)
    panel.legend(loc="lower left")


def gamma0_panel(panel, theory, networks, lazy):
    panel.axhline(float(lazy["alignment"][0]), color="black", linestyle="--", label="Gaussian process")
    mean, error = ts.study.mean_and_error(theory["alignment"])
    panel.plot(mean["gamma0"], mean, color=ts.study.PALETTE[0], label="mean field")
    band = {"color": ts.study.PALETTE[0], "alpha": 0.2, "linewidth": 0}
    panel.fill_between(mean["gamma0"], mean - 2 * error, mean + 2 * error, **band)
    mean, error = ts.study.mean_and_error(networks["alignment"])
    panel.errorbar(mean["gamma0"], mean, error, fmt="o", color=ts.study.PALETTE[1], label="networks")
    panel.set(title="(e) gradient descent", xlabel=r"$\gamma_0$", ylabel="alignment with targets")
    panel.set_ylim(0, 1.05)
    panel.legend()


def nu_panel(panel, bayesian, posterior, lazy):
    panel.axhline(float(lazy["alignment"][0]), color="black", linestyle="--", label="Gaussian process")
    panel.plot(bayesian["nu"], bayesian["alignment"], color=ts.study.PALETTE[0], label="deep kernel machine")
    width = int(posterior["width"][-1])
    for color, marker, units in zip(ts.study.PALETTE[1:], "oD", posterior["units"].values, strict=False):
        mean, error = ts.study.mean_and_error(posterior["alignment"].sel(units=units, width=width))
        what = {"linear": "linear units", "erf": "neurons"}[units]
        panel.errorbar(mean["nu"], mean, error, fmt=marker, color=color, mfc="none", label=f"{width} {what}")
    panel.set(title="(f) Bayesian", xlabel=r"width per output $\nu$", xscale="log", ylim=(0, 1.05))
    panel.legend()


# %%
if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    plt.rcParams.update(ts.study.style())
    data = simulate(PRESETS["smoke"])
    draw(data)
