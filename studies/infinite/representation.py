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

import theorysim as ts

TITLE = "What wide networks make of digits"
SOURCES = ("arXiv:1806.07572", "arXiv:2205.09653", "arXiv:2108.13097")


class Preset(NamedTuple):
    """Widths and number of trained networks; samples and batches of mean-field theory; of the posterior: what its
    layers are made of, their widths, and the draws of each chain.
    """

    widths: tuple[int, ...]
    repeats: int
    samples: int
    batches: int
    units: tuple[str, ...]
    layers: tuple[int, ...]
    draws: int


LINEAR, BOTH = ("linear",), ("linear", "erf")
PRESETS = {
    "smoke": Preset((32, 128), repeats=32, samples=128, batches=8, units=LINEAR, layers=(32, 64), draws=40),
    "laptop": Preset((64, 128, 256), repeats=48, samples=2048, batches=8, units=BOTH, layers=(32, 64, 128), draws=150),
    "paper": Preset((256, 512, 2048), repeats=128, samples=8192, batches=16, units=BOTH, layers=(64, 512), draws=2000),
}
IMAGES, STEPS, LEARNING_RATE, NOISE = 6, 6, 1.0, 0.05
LAZY, GAMMA0 = 0.05, (0.05, 0.2, 0.5, 1.0, 2.0)
NU = np.geomspace(0.1, 1e4, 26)
SAMPLED, CHAINS, WARMUP = NU[[4, 7, 10, 13]], 16, 40


def threes_and_eights():
    """As many of the one as of the other, one after the other; targets +1 and -1."""
    images, labels = ts.study.digits(scale="image")
    chosen = np.concatenate([np.flatnonzero(labels == digit)[: IMAGES // 2] for digit in (3, 8)])
    return jnp.asarray(images[chosen]), jnp.asarray(np.repeat([1.0, -1.0], IMAGES // 2))


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
    x, y = threes_and_eights()
    erf = ts.infinite.erf
    training = {"depth": 2, "learning_rate": LEARNING_RATE, "steps": STEPS}

    def observed(trajectory):
        start, end = (trajectory.features[-1, t, :, t] for t in (0, -1))
        aligned = {"alignment": alignment(end, y), "initial": alignment(start, y)}
        return {"loss": trajectory.loss, "kernel": end, **aligned}

    def mean_field(gamma0, batch):
        sampling = {"samples": preset.samples, "batches": 1, "key": jax.random.fold_in(jax.random.key(0), batch)}
        return observed(ts.infinite.mup.dmft(erf, x, y, gamma0=gamma0, **training, **sampling).value)

    def network(gamma0, width, key):
        return observed(ts.networks.train_mup(erf, x, y, gamma0=gamma0, **training, width=width, key=key))

    def lazy(step):
        kernels = ts.infinite.fully_connected(erf, x, depth=2)
        modes = ts.infinite.dynamics.modes(kernels.ntk)
        left = y - ts.infinite.dynamics.response(modes, kernels.ntk, steps=step, learning_rate=LEARNING_RATE) @ y
        aligned = alignment(kernels.nngp, y)
        return {"loss": jnp.square(left).mean() / 2, "kernel": kernels.nngp, "alignment": aligned}

    def bayesian(nu):
        fitted = ts.infinite.deep_kernel.fit(erf, x, y[:, None], depth=2, nu=nu, noise_var=NOISE)
        kernel = covariance(fitted.grams[-1])
        found = {"gram": along(fitted.grams[-1]), "alignment": alignment(kernel, y), "converged": fitted.converged}
        return {"kernel": kernel, **found}

    def along(gram):
        """The targets."""
        return y @ gram @ y / (y @ y)

    def chain(nu, units, width, key):
        kernel = {"linear": of_linear_units, "erf": of_neurons}[units]
        model = {"width": width, "depth": 2, "nu": nu, "noise_var": NOISE}
        steps = {"draws": preset.draws, "warmup": WARMUP, "step": 0.18, "leaps": 6}
        sampled = ts.networks.sample_posterior(kernel, x, y[:, None], **model, **steps, key=key)
        aligned = jax.vmap(lambda kernel: alignment(kernel, y))(sampled.kernels)
        return {"gram": along(sampled.grams.mean(0)), "alignment": aligned.mean(), "acceptance": sampled.acceptance}

    grid = {"gamma0": np.array(GAMMA0)}
    named = {
        "dims": {"loss": ["step"], "kernel": ["image", "other"]},
        "coords": {"step": np.arange(STEPS + 1)},
        "lanes": 8,
    }
    mean_fields = ts.sweep(mean_field, ts.Grid(**grid, batch=np.arange(preset.batches)), **named)
    random = {"key": jax.random.key(1), "repeats": preset.repeats}
    posterior = ts.sweep(
        chain,
        ts.Grid(units=ts.static(*preset.units), width=ts.static(*preset.layers), nu=SAMPLED),
        key=jax.random.key(2),
        repeats=CHAINS,
        lanes=CHAINS * len(SAMPLED),
    )
    square = {"kernel": ["image", "other"]}
    return ts.study.tree(
        theory=mean_fields.rename(batch="repeat"),
        lazy=ts.sweep(lazy, ts.Grid(step=np.arange(STEPS + 1)), dims=square),
        bayesian=ts.sweep(bayesian, ts.Grid(nu=NU), dims=square, lanes=8),
        posterior=posterior,
        simulation=ts.sweep(network, ts.Grid(**grid, width=ts.static(*preset.widths)), **random, **named),
    )


# %% [markdown]
# ## What must agree


# %%
def claims(data):
    theory, networks, lazy = (data[node].to_dataset() for node in ("theory", "simulation", "lazy"))
    yield ts.study.limit_agrees(
        "start",
        "alignment of the features with the targets before training, extrapolated in 1 / width: the Gaussian process's",
        lazy["alignment"][0],
        networks["initial"].mean("gamma0"),
        span=(0, 1),
    )
    loss = float(lazy["loss"].mean())
    yield ts.study.limit_agrees(
        "lazy",
        f"loss at gamma0 = {LAZY:g}, mean over steps, extrapolated in 1 / width: the tangent kernel's",
        loss,
        networks["loss"].sel(gamma0=LAZY).mean("step"),
        next_order=loss * LAZY**2,
        why="gamma0^2, the relative growth of kernels",
    )
    for gamma0 in GAMMA0[1:]:
        yield ts.study.limit_agrees(
            f"mean field, gamma0 = {gamma0:g}",
            f"alignment after training at gamma0 = {gamma0:g}, extrapolated in 1 / width: mean-field theory's",
            ts.study.mean_estimate(theory["alignment"].sel(gamma0=gamma0)),
            networks["alignment"].sel(gamma0=gamma0),
            span=(0, 1),
        )
    for nu in SAMPLED:
        exact, sampled = data["bayesian"].to_dataset().sel(nu=nu), data["posterior"].to_dataset().sel(nu=nu)
        for name, quantity in (("alignment", "alignment"), ("gram", "Gram matrix along the targets")):
            yield ts.study.limit_agrees(
                f"posterior {name}, nu = {nu:.2g}",
                f"{quantity} of linear units in the posterior at nu = {nu:.2g}, extrapolated in 1 / width: "
                "a deep kernel machine's",
                exact[name],
                sampled[name].sel(units="linear"),
            )


# %% [markdown]
# ## Kernels side by side


# %%
def draw(data):
    figure, axes = plt.subplots(2, 3, figsize=ts.study.page(2, 3, 0.9))
    rich, small = GAMMA0[-1], NU[10]
    shown = (
        ("(a) Gaussian process", data["lazy"]["kernel"][0]),
        (rf"(b) mean field, $\gamma_0 = {rich:g}$", data["theory"]["kernel"].sel(gamma0=rich).mean("repeat")),
        (rf"(c) deep kernel, $\nu = {small:.2g}$", data["bayesian"]["kernel"].sel(nu=small)),
    )
    for panel, (title, kernel) in zip(axes[0], shown, strict=True):
        scale = np.sqrt(np.diag(kernel))
        picture = panel.imshow(kernel / np.outer(scale, scale), vmin=-1, vmax=1, cmap="RdBu_r")
        panel.set_xticks([IMAGES / 4 - 0.5, 3 * IMAGES / 4 - 0.5], ["threes", "eights"])
        panel.set(title=title, yticks=[])
    figure.colorbar(picture, ax=axes[0], label="cosine", shrink=0.8)
    loss_panel(axes[1, 0], data)
    gamma0_panel(axes[1, 1], data)
    nu_panel(axes[1, 2], data)
    return {"representation": figure}


def loss_panel(panel, data):
    panel.plot(data["lazy"]["step"], data["lazy"]["loss"], color="black", linestyle="--", label="tangent kernel")
    for color, gamma0 in zip(ts.study.PALETTE, (LAZY, *GAMMA0[-2:]), strict=False):
        mean = data["theory"]["loss"].sel(gamma0=gamma0).mean("repeat")
        panel.plot(mean["step"], mean, color=color)
        widest = data["simulation"]["loss"].sel(gamma0=gamma0).isel(width=-1)
        ts.study.points(panel, widest, color=color, label=rf"$\gamma_0 = {gamma0:g}$")
    panel.set(title="(d) training", xlabel="step", ylabel="loss", yscale="log", ylim=(2e-6, 1))
    panel.legend(loc="lower left")


def gamma0_panel(panel, data):
    color = ts.study.PALETTE[0]
    panel.axhline(data["lazy"]["alignment"][0], color="black", linestyle="--", label="Gaussian process")
    ts.study.mean_and_band(panel, data["theory"]["alignment"], color, label="mean field")
    widest = data["simulation"]["alignment"].isel(width=-1)
    ts.study.points(panel, widest, color=ts.study.PALETTE[1], label=f"networks, width {int(widest['width'])}")
    panel.set(title="(e) gradient descent", xlabel=r"$\gamma_0$", ylabel="alignment with targets", ylim=(0, 1.05))
    panel.legend()


def nu_panel(panel, data):
    exact, sampled = data["bayesian"]["alignment"], data["posterior"]["alignment"].isel(width=-1)
    panel.axhline(data["lazy"]["alignment"][0], color="black", linestyle="--", label="Gaussian process")
    panel.plot(exact["nu"], exact, color=ts.study.PALETTE[0], label="deep kernel machine")
    names = {"linear": "linear units", "erf": "neurons"}
    for color, marker, units in zip(ts.study.PALETTE[1:], "oD", sampled["units"].values, strict=False):
        label = f"{int(sampled['width'])} {names[units]}"
        ts.study.points(panel, sampled.sel(units=units), fmt=marker, color=color, mfc="none", label=label)
    panel.set(title="(f) Bayesian", xlabel=r"width per output $\nu$", xscale="log", ylim=(0, 1.05))
    panel.legend()


# %%
if __name__ == "__main__":
    ts.study.set_up()
    data = simulate(PRESETS["smoke"])
    draw(data)
    print(*claims(data), sep="\n")
