"""Do the intervals of a scaling law cover? Training runs are planted on a known surface, fitted and resampled, hundreds
of times; and the three approaches to a compute-optimal frontier look at the same runs.
"""

# %% [markdown]
# # Recovering a planted scaling law
#
# Losses follow $L(n, d) = E + A n^{-\alpha} + B d^{-\beta}$ with the constants of Besiroglu et al., times
# $e^r$ with heavy-tailed $r$ (Student's t with 2.5 degrees of freedom, 0.4 %), as of Chinchilla's runs. The optimal
# size is $n^* = G (C / 6)^a$ with $a = \beta / (\alpha + \beta)$.
#
# Three designs of runs: `isoflop`, nine sizes at each of nine budgets, a factor of four about the optimum; `scattered`,
# runs anywhere between 1 and 400 tokens a parameter; `ladder`, seven sizes times ten lengths, where a third of the
# compute goes into one run.
#
# A parabola through the losses of one budget (approach 2) misses the true optimum even without noise, by
# $(\alpha - \beta)\, m_4 / (6 m_2)$ in $\log n$, with $m_k$ the moments of the grid about the optimum.

# %%
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import theorysim as ts

TITLE = "Recovering a planted scaling law"
SOURCES = ("arXiv:2203.15556", "arXiv:2404.10102")


class Preset(NamedTuple):
    """Data sets of each design, and resamples of each data set."""

    repeats: int
    samples: int


PRESETS = {"smoke": Preset(48, 39), "laptop": Preset(160, 199), "paper": Preset(4000, 999)}
TRUTH = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
HOFFMANN = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}
SURFACES = {"Besiroglu et al.": TRUTH, "Hoffmann et al.": HOFFMANN}
WIDTHS = np.geomspace(1.5, 8, 26)  # of the parabolas' grids, factors about the optimum
LAW = ts.scaling.LAWS["chinchilla"]
SCALE, FREEDOM = 0.004, 2.5
BUDGETS = np.geomspace(1e18, 1e22, 9)
OFFSETS = np.linspace(-np.log(4), np.log(4), 9)
LEVELS = np.array([0.5, 0.8, 0.9, 0.95])
LARGER = 10.0  # the compute of the prediction, over that of the largest run


def designs():
    """Model sizes and tokens of each design."""
    optimal = np.asarray(ts.scaling.chinchilla_frontier(TRUTH, BUDGETS).n)
    n = (optimal[:, None] * np.exp(OFFSETS)).ravel()
    isoflop = n, np.repeat(BUDGETS, len(OFFSETS)) / 6 / n
    rng = np.random.default_rng(0)
    compute, ratio = 10 ** rng.uniform(18, 22, 120), 400 ** rng.uniform(0, 1, 120)
    scattered = np.sqrt(compute / 6 / ratio), np.sqrt(compute / 6 * ratio)
    sizes, ratios = np.geomspace(3e7, 3e9, 7), np.geomspace(2, 200, 10)
    ladder = np.repeat(sizes, len(ratios)), np.outer(sizes, ratios).ravel()
    return {"isoflop": isoflop, "scattered": scattered, "ladder": ladder}


def quantities(parameters, compute):
    """What is asked of a fit: its parameters, the exponent, and the optimal size for a larger compute."""
    size = ts.scaling.chinchilla_frontier(parameters, LARGER * compute).n
    return {
        **{name: parameters[name] for name in ("E", "alpha", "beta")},
        "a": ts.scaling.frontier_exponent(parameters),
        "log n*": jnp.log(size),
    }


# %% [markdown]
# ## Fits, their resamples, and the other two approaches


# %%
def simulate(preset):
    # All of one length, so that the designs share one program.
    most = max(len(n) for n, _ in designs().values())
    largest = {name: float((6 * n * d).max()) for name, (n, d) in designs().items()}
    sizes = designs()["isoflop"][0]

    def recover(design, key):
        (problem, point), compute, has_budgets = design
        noise_key, sample_key = jax.random.split(key)
        noise = SCALE * student_t(noise_key, most)

        def asked(parameters):
            return jnp.stack(list(quantities(parameters, compute).values()))

        options = {"key": sample_key, "levels": jnp.asarray(LEVELS), "samples": preset.samples}
        found = ts.scaling.coverage.recover(problem, point, noise, asked, **options)
        log_loss = (problem.log_loss + noise)[: len(sizes)] + problem.log_scale["loss"]
        best = approaches(sizes, jnp.exp(log_loss))
        return {**found._asdict(), **{key: jnp.where(has_budgets, value, jnp.nan) for key, value in best.items()}}

    def of_design(name, n, d):
        problem, point = ts.scaling.coverage.planted(LAW, {"n": n, "d": d}, TRUTH)
        return (problem.padded(most), point), largest[name], name == "isoflop"

    names = list(quantities(TRUTH, 1.0))
    data = ts.sweep(
        recover,
        ts.Grid(design=ts.labelled({name: of_design(name, *runs) for name, runs in designs().items()})),
        key=jax.random.key(0),
        repeats=preset.repeats,
        dims={
            **{"estimate": ["quantity"], "low": ["level", "quantity"], "high": ["level", "quantity"]},
            **{"exponent": ["approach"], "log_size": ["approach"]},
        },
        coords={"quantity": names, "level": LEVELS, "approach": [1, 2]},
        lanes=8,  # times 8 resamples: loops in lockstep, and arrays in the cache
    )
    truth = np.array([list(quantities(TRUTH, compute).values()) for compute in largest.values()], float)
    theory = xr.Dataset({"truth": (("design", "quantity"), truth)}, {"design": list(largest), "quantity": names})
    return ts.study.tree(theory=theory, simulation=data, parabola=parabolas())


def student_t(key, count):
    """Two uniform numbers each, in polar coordinates (Bailey, Mathematics of Computation 62, 1994)."""
    u, v = jax.random.uniform(key, (2 * count,)).reshape(2, count)
    return jnp.sqrt(FREEDOM * (u ** (-2 / FREEDOM) - 1)) * jnp.cos(2 * jnp.pi * v)


def approaches(n, loss):
    """Exponent and mean log size by the lowest run of each budget (1), and by the vertex of a parabola (2)."""
    n, loss = (runs.reshape(len(BUDGETS), -1) for runs in (n, loss))
    lowest = jnp.take_along_axis(jnp.log(n), loss.argmin(1)[:, None], 1)[:, 0]
    best = jnp.stack([lowest, jax.vmap(ts.scaling.approaches.vertex)(jnp.log(n), loss)])
    x = jnp.log(BUDGETS) - jnp.log(BUDGETS).mean()
    return {"exponent": best @ x / (x @ x), "log_size": best.mean(1)}


def parabolas():
    """Approach 2 on losses without noise: its shift in log n, and the shift's leading term."""

    def shifted(surface, width):
        offsets = jnp.linspace(-1, 1, 15) * jnp.log(width)
        best = ts.scaling.chinchilla_frontier(surface, BUDGETS).n
        n = best[:, None] * jnp.exp(offsets)[None]
        found = jax.vmap(ts.scaling.approaches.vertex)(jnp.log(n), LAW(n=n, d=BUDGETS[:, None] / 6 / n, **surface))
        predicted = ts.scaling.approaches.vertex_shift(surface["alpha"], surface["beta"], offsets)
        return {"shift": (found - jnp.log(best)).mean(), "predicted": predicted}

    return ts.sweep(shifted, ts.Grid(surface=ts.labelled(SURFACES), width=WIDTHS))


# %% [markdown]
# ## What must hold


# %%
def claims(data):
    runs, truth = data["simulation"].to_dataset(), data["theory"]["truth"]
    inside = ((runs["low"] < truth) & (truth < runs["high"])).sel(level=0.95)
    # Data sets of different designs are independent, the quantities of one data set are not.
    yield ts.study.agrees(
        "cover",
        "cover of the 95 % bootstrap interval, mean over five quantities and three designs",
        0.95,
        ts.study.mean_estimate(inside.mean("quantity"), over=("design", "repeat")),
        span=(0, 1),
    )
    for design in runs["design"].values:
        yield ts.study.agrees(
            f"exponent, {design}",
            f"parametric fits to {design} runs: exponent $a$, mean over data sets",
            truth.sel(design=design, quantity="a").item(),
            ts.study.mean_estimate(runs["estimate"].sel(design=design, quantity="a")),
        )
    yield ts.study.agrees(
        "exponent, parabolas",
        "parabolas through noisy runs: exponent $a$, mean over data sets; their shift is the same at all budgets",
        truth.sel(design="isoflop", quantity="a").item(),
        ts.study.mean_estimate(runs["exponent"].sel(design="isoflop", approach=2)),
    )
    narrow = data["parabola"].to_dataset().sel(width=1.5)
    yield ts.study.Claim(
        "shift of parabolas",
        "parabolas without noise: ratio of the shift of log n* to its leading term, at half-width log 1.5",
        predicted=1,
        measured=float((narrow["shift"] / narrow["predicted"]).mean()),
        tolerance=float(0.06 * np.log(1.5) ** 2),
        why="the next order in the half-width",
    )


# %% [markdown]
# ## The truth as lines, fits as points


# %%
def draw(data):
    panels = design_panel, cover_panel, exponent_panel, parabola_panel
    return {"chinchilla_recovery": ts.study.drawn(data, *panels, height_to_width=0.75)}


MARKERS = {"isoflop": "o", "scattered": "s", "ladder": "^"}


def design_panel(panel, _):
    for color, (name, (n, d)) in zip(ts.study.PALETTE, designs().items(), strict=False):
        panel.plot(6 * n * d, n, MARKERS[name], color=color, markersize=2.5, alpha=0.7, label=f"{name}, {len(n)} runs")
    compute = np.geomspace(1e17, 1e23, 50)
    panel.plot(compute, ts.scaling.chinchilla_frontier(TRUTH, compute).n, "k", label="optimum")
    panel.set(title="(a) designs", xlabel="compute (flops)", ylabel="parameters", xscale="log", yscale="log")
    panel.legend()


def cover_panel(panel, data):
    runs, truth = data["simulation"], data["theory"]["truth"]
    inside = ((runs["low"] < truth) & (truth < runs["high"])).mean("quantity")
    panel.axhline(0, color="0.4", label="nominal")
    panel.fill_between([0.45, 1], -2, 2, color="0.9", linewidth=0)
    for i, (color, design) in enumerate(zip(ts.study.PALETTE, runs["design"].values, strict=False)):
        style = {"fmt": MARKERS[design], "color": color, "label": design}
        ts.study.cover_points(panel, inside.sel(design=design), shift=0.008 * (i - 1), **style)
    panel.set(title="(b) cover of bootstrap intervals", xlim=(0.45, 1.0))
    panel.legend()


def exponent_panel(panel, data):
    runs = data["simulation"].to_dataset()
    exact = float(ts.scaling.frontier_exponent(TRUTH))
    rows = [
        ("1: lowest run", runs["exponent"].sel(design="isoflop", approach=1), "isoflop"),
        ("2: parabolas", runs["exponent"].sel(design="isoflop", approach=2), "isoflop"),
        *((f"3: fit, {name}", runs["estimate"].sel(design=name, quantity="a"), name) for name in MARKERS),
    ]
    panel.axvline(exact, color="k", linewidth=0.8)
    colors = dict(zip(MARKERS, ts.study.PALETTE, strict=False))
    for i, (_, values, design) in enumerate(rows):
        ts.study.percentile_bar(panel, i, values, fmt=MARKERS[design], color=colors[design])
    panel.set_yticks(range(len(rows)), [label for label, *_ in rows])
    panel.set(title="(c) the exponent $a$, 95 % of data sets", xlabel="$a$", ylim=(len(rows) - 0.4, -0.6))


def parabola_panel(panel, data):
    parabola = data["parabola"].to_dataset()
    for color, surface in zip(ts.study.PALETTE, SURFACES, strict=False):
        line = parabola.sel(surface=surface)
        panel.plot(line["width"], line["predicted"], color=color)
        panel.plot(line["width"][::5], line["shift"][::5], "o", color=color, label=surface)
    panel.axhline(0, color="0.7", linewidth=0.6)
    panel.set(title="(d) parabolas, no noise; lines: theory", xlabel="sizes within a factor of the optimum")
    panel.set(ylabel=r"shift of $\log n^*$")
    panel.legend(title="surface")


# %%
if __name__ == "__main__":
    ts.study.set_up()
    data = simulate(PRESETS["smoke"])
    draw(data)
    print(*claims(data), sep="\n")
