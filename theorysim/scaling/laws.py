"""The published laws, each a plain function of inputs and parameters; `LAWS` names them for fits.

n is the number of parameters, d of training tokens (or examples), c the compute in flops, s of steps, b the batch in
tokens, x any scale. Losses are in nats unless a law says otherwise. Laws of learning-rate schedules are in
`theorysim.scaling.schedule`.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from theorysim.root import root
from theorysim.scaling.law import Law, Parameter, power
from theorysim.scaling.task import pass_rate_law
from theorysim.scaling.verifier import resampling_law
from theorysim.typing import Numbers, ScalarLike

Loss = Float[Array, "*shape"]


def hestness(d: Numbers, a: ScalarLike, b: ScalarLike, c: ScalarLike) -> Loss:
    """Loss a d^b + c with b < 0 (Hestness et al., arXiv:1712.00409)."""
    return a * power(d, b) + c


def kaplan_n(n: Numbers, Nc: ScalarLike, alpha: ScalarLike) -> Loss:
    """(Nc / n)^alpha, n without embeddings (Kaplan et al., arXiv:2001.08361, eq. 1.1)."""
    return power(Nc / n, alpha)


def kaplan_d(d: Numbers, Dc: ScalarLike, alpha: ScalarLike) -> Loss:
    """(Dc / d)^alpha, with early stopping (arXiv:2001.08361, eq. 1.2)."""
    return power(Dc / d, alpha)


def kaplan_c(c: Numbers, Cc: ScalarLike, alpha: ScalarLike) -> Loss:
    """(Cc / c)^alpha, at the best size for each compute (arXiv:2001.08361, eq. 1.3)."""
    return power(Cc / c, alpha)


def kaplan_nd(n: Numbers, d: Numbers, Nc: ScalarLike, Dc: ScalarLike, alpha_n: ScalarLike, alpha_d: ScalarLike) -> Loss:
    """[(Nc / n)^(alpha_n / alpha_d) + Dc / d]^alpha_d (arXiv:2001.08361, eq. 1.5)."""
    return power(power(Nc / n, alpha_n / alpha_d) + Dc / d, alpha_d)


def kaplan_ns(n: Numbers, s: Numbers, Nc: ScalarLike, Sc: ScalarLike, alpha_n: ScalarLike, alpha_s: ScalarLike) -> Loss:
    """(Nc / n)^alpha_n + (Sc / s)^alpha_s, s the steps at a batch far above critical (arXiv:2001.08361, eq. 1.6)."""
    return power(Nc / n, alpha_n) + power(Sc / s, alpha_s)


def su(
    n: Numbers,
    s: Numbers,
    b: Numbers,
    Nc: ScalarLike,
    Sc: ScalarLike,
    Bc: ScalarLike,
    alpha_n: ScalarLike,
    alpha_s: ScalarLike,
    alpha_b: ScalarLike,
) -> Loss:
    """[`kaplan_ns`] after s steps at the batch b: s_min = s / (1 + b_crit / b), b_crit = Bc / loss^(1 / alpha_b).

    The critical batch is that of the current loss, which is thus the root of an equation (arXiv:2001.08361, section 5;
    Su et al., arXiv:2403.06563, fit it to whole training curves).
    """
    capacity, learning = alpha_n * jnp.log(Nc / n), alpha_s * jnp.log(Sc / s)

    def log_loss_at(log_critical: Any) -> Array:
        """At a critical batch that many times the batch."""
        return jnp.logaddexp(capacity, learning + alpha_s * jax.nn.softplus(log_critical))

    def excess(log_loss: Array) -> Array:
        return log_loss - log_loss_at(jnp.log(Bc / b) - log_loss / alpha_b)

    low = log_loss_at(-jnp.inf)
    high = low - excess(low)
    # Both may be the root itself: a margin keeps rounding from cutting it off.
    return jnp.exp(root(excess, low - 1e-3, high + 1e-3))


def henighan(x: Numbers, E: ScalarLike, x0: ScalarLike, alpha: ScalarLike) -> Loss:
    """E + (x0 / x)^alpha, x a size or a compute (Henighan et al., arXiv:2010.14701)."""
    return E + power(x0 / x, alpha)


def chinchilla(
    n: Numbers, d: Numbers, E: ScalarLike, A: ScalarLike, B: ScalarLike, alpha: ScalarLike, beta: ScalarLike
) -> Loss:
    """E + A / n^alpha + B / d^beta (Hoffmann et al., arXiv:2203.15556, section 3.3)."""
    return E + A * power(n, -alpha) + B * power(d, -beta)


def muennighoff(
    n: Numbers,
    d: Numbers,
    unique: Numbers,
    E: ScalarLike,
    A: ScalarLike,
    B: ScalarLike,
    alpha: ScalarLike,
    beta: ScalarLike,
    R_n: ScalarLike,
    R_d: ScalarLike,
) -> Loss:
    """[`chinchilla`] of effective sizes, where `unique` tokens are repeated (Muennighoff et al., arXiv:2305.16264).

    A repeated token is worth less, by a scale of R_d repetitions, and so are parameters in excess of those that the
    unique tokens ask for, by R_n.
    """
    unique = jnp.minimum(unique, d)
    G = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    enough = jnp.minimum(n, G * power(G * unique, beta / alpha))

    def effective(of: Any, size: Any, scale: Any) -> Loss:
        return of - of * scale * jnp.expm1(-jnp.maximum(size / of - 1, 0) / scale)

    return chinchilla(effective(enough, n, R_n), effective(unique, d, R_d), E, A, B, alpha, beta)


def gadre(n: Numbers, d: Numbers, E: ScalarLike, a: ScalarLike, b: ScalarLike, eta: ScalarLike) -> Loss:
    """E + (a M^eta + b M^-eta) C^-eta with M = d / n and C = 6 n d (Gadre et al., arXiv:2403.08540)."""
    M, C = d / n, 6 * n * d
    return E + (a * power(M, eta) + b * power(M, -eta)) * power(C, -eta)


def broken(x: Numbers, a: ScalarLike, b: ScalarLike, c0: ScalarLike, **breaks: ScalarLike) -> Loss:
    """Loss a + b x^-c0 prod_i [1 + (x / d_i)^(1 / f_i)]^(-c_i f_i) (Caballero et al., arXiv:2210.14891, eq. 1).

    Break i lies at d_i, is as sharp as f_i is small, and changes the slope by c_i; `breaks` holds d1, f1, c1, d2, ...
    """
    log_x = jnp.log(x)
    exponent = -c0 * log_x
    for i in range(1, len(breaks) // 3 + 1):
        d, f, c = (breaks[f"{letter}{i}"] for letter in "dfc")
        exponent = exponent - c * f * jax.nn.softplus((log_x - jnp.log(d)) / f)
    return a + b * jnp.exp(exponent)


def crossing(
    c: Numbers,
    method: Numbers,
    E: ScalarLike,
    A1: ScalarLike,
    A2: ScalarLike,
    alpha1: ScalarLike,
    alpha2: ScalarLike,
) -> Loss:
    """Loss E + A_i c^-alpha_i of two methods, `method` = 1 or 2, with one floor (Xiao, arXiv:2409.15156)."""
    return E + jnp.where(method == 1, A1 * power(c, -alpha1), A2 * power(c, -alpha2))


def m1(x: Numbers, b: ScalarLike, c: ScalarLike) -> Loss:
    """Loss b x^-c (Alabdulmohsin et al., arXiv:2209.06640)."""
    return b * power(x, -c)


def m2(x: Numbers, b: ScalarLike, c: ScalarLike, E: ScalarLike) -> Loss:
    """Loss b x^-c + E (arXiv:2209.06640)."""
    return b * power(x, -c) + E


def m3(x: Numbers, b: ScalarLike, c: ScalarLike, gamma: ScalarLike) -> Loss:
    """Loss b (1 / x + gamma)^c: its floor is b gamma^c (arXiv:2209.06640)."""
    return b * power(1 / x + gamma, c)


def m4(x: Numbers, b: ScalarLike, c: ScalarLike, E: ScalarLike, E0: ScalarLike, alpha: ScalarLike) -> Loss:
    """The loss in (E, E0) with (loss - E) / (E0 - loss)^alpha = b x^-c: a sigmoid of log x (arXiv:2209.06640).

    E0 is the loss of chance. Solved for the logit of (loss - E) / (E0 - E).
    """
    gap = E0 - E
    target = jnp.log(b) - c * jnp.log(x) - (1 - alpha) * jnp.log(gap)

    def excess(logit: Array) -> Array:
        return jax.nn.log_sigmoid(logit) - alpha * jax.nn.log_sigmoid(-logit) - target

    def without_softness(value: Array) -> Array:
        return jnp.where(value < 0, value, value / alpha)

    # Softplus is max(x, 0) up to log 2.
    low, high = without_softness(target - alpha * math.log(2)), without_softness(target + math.log(2))
    return E + gap * jax.nn.sigmoid(root(excess, low, high))


def routed(
    n: Numbers,
    experts: Numbers,
    a: ScalarLike,
    b: ScalarLike,
    c: ScalarLike,
    d: ScalarLike,
    E_start: ScalarLike,
    E_max: ScalarLike,
) -> Loss:
    """log10 loss = a log10 n + b log10 E + c log10 n log10 E + d of routed networks (Clark et al., arXiv:2202.01169).

    n is the size of the dense network, and E the effective number of experts, which saturates from E_start to E_max:
    1 / E = 1 / (experts - 1 + 1 / (1 / E_start - 1 / E_max)) + 1 / E_max. One expert is a dense network.
    """
    saturated = 1 / (1 / (experts - 1 + 1 / (1 / E_start - 1 / E_max)) + 1 / E_max)
    log_n, log_e = jnp.log10(n), jnp.log10(saturated)
    return jnp.exp(math.log(10) * (a * log_n + b * log_e + c * log_n * log_e + d))


def sparse(
    n: Numbers,
    d: Numbers,
    sparsity: Numbers,
    A: ScalarLike,
    B: ScalarLike,
    C: ScalarLike,
    D: ScalarLike,
    E: ScalarLike,
    alpha: ScalarLike,
    beta: ScalarLike,
    gamma: ScalarLike,
    delta: ScalarLike,
    lam: ScalarLike,
) -> Loss:
    """Mixture of experts with a share `sparsity` of inactive parameters (Abnar et al., arXiv:2501.12370).

    A n^-alpha + B d^-beta + C (1 - sparsity)^-lam + D (1 - sparsity)^-delta n^-gamma + E.
    """
    active = 1 - sparsity
    return (
        A * power(n, -alpha)
        + B * power(d, -beta)
        + C * power(active, -lam)
        + D * power(active, -delta) * power(n, -gamma)
        + E
    )


EXPONENT = Parameter(0.05, 1.0, positive=False)
FLOOR = Parameter(0.1, 0.95, {"loss": 1})


def _scale(**unit: str) -> Parameter:
    """A coefficient: a loss times inputs to powers, given as the names of exponents."""
    powers = {name: _power(exponent) for name, exponent in unit.items()}
    return Parameter(0.02, 1.5, {"loss": 1, **powers})


def _power(name: str) -> Callable:
    sign, name = (-1, name[1:]) if name.startswith("-") else (1, name)
    return lambda values: sign * values[name]


def _crossing(unit: str, exponent: str) -> Parameter:
    """The input at which a power of it would be one: it carries loss^(1 / exponent)."""
    return Parameter(1e-4, 100.0, {unit: 1, "loss": lambda values: 1 / values[exponent]})


def broken_law(breaks: int) -> Law:
    """[`broken`] with so many breaks."""
    parameters = {"a": FLOOR, "b": _scale(x="c0"), "c0": EXPONENT}
    for i in range(1, breaks + 1):
        parameters |= {
            f"d{i}": Parameter(0.1, 10.0, {"x": 1}),
            f"f{i}": Parameter(0.1, 1.0),
            f"c{i}": Parameter(-1.0, 1.0, positive=False),
        }
    return Law(
        "broken" if breaks == 1 else f"broken{breaks}", broken, {"x": "x"}, parameters, "arXiv:2210.14891", rises=True
    )


CHINCHILLA = {"E": FLOOR, "A": _scale(n="alpha"), "B": _scale(d="beta"), "alpha": EXPONENT, "beta": EXPONENT}

LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        Law(
            "hestness",
            hestness,
            {"d": "d"},
            {"a": _scale(d="-b"), "b": Parameter(-1.0, -0.05, positive=False), "c": FLOOR},
            "arXiv:1712.00409",
        ),
        Law("kaplan_n", kaplan_n, {"n": "n"}, {"Nc": _crossing("n", "alpha"), "alpha": EXPONENT}, "arXiv:2001.08361"),
        Law("kaplan_d", kaplan_d, {"d": "d"}, {"Dc": _crossing("d", "alpha"), "alpha": EXPONENT}, "arXiv:2001.08361"),
        Law("kaplan_c", kaplan_c, {"c": "c"}, {"Cc": _crossing("c", "alpha"), "alpha": EXPONENT}, "arXiv:2001.08361"),
        Law(
            "kaplan_nd",
            kaplan_nd,
            {"n": "n", "d": "d"},
            {
                "Nc": _crossing("n", "alpha_n"),
                "Dc": _crossing("d", "alpha_d"),
                "alpha_n": EXPONENT,
                "alpha_d": EXPONENT,
            },
            "arXiv:2001.08361",
        ),
        Law(
            "kaplan_ns",
            kaplan_ns,
            {"n": "n", "s": "s"},
            {
                "Nc": _crossing("n", "alpha_n"),
                "Sc": _crossing("s", "alpha_s"),
                "alpha_n": EXPONENT,
                "alpha_s": EXPONENT,
            },
            "arXiv:2001.08361",
        ),
        Law(
            "su",
            su,
            {"n": "n", "s": "s", "b": "b"},
            {
                "Nc": _crossing("n", "alpha_n"),
                "Sc": _crossing("s", "alpha_s"),
                "Bc": _crossing("b", "alpha_b"),
                "alpha_n": EXPONENT,
                "alpha_s": EXPONENT,
                "alpha_b": EXPONENT,
            },
            "arXiv:2403.06563",
        ),
        Law(
            "henighan",
            henighan,
            {"x": "x"},
            {"E": FLOOR, "x0": _crossing("x", "alpha"), "alpha": EXPONENT},
            "arXiv:2010.14701",
        ),
        Law("chinchilla", chinchilla, {"n": "n", "d": "d"}, CHINCHILLA, "arXiv:2203.15556"),
        Law(
            "muennighoff",
            muennighoff,
            {"n": "n", "d": "d", "unique": "d"},
            {**CHINCHILLA, "R_n": Parameter(1.0, 30.0), "R_d": Parameter(1.0, 30.0)},
            "arXiv:2305.16264",
        ),
        Law(
            "gadre",
            gadre,
            {"n": "n", "d": "d"},
            {
                "E": FLOOR,
                "a": Parameter(0.02, 1.5, {"loss": 1, "n": lambda values: 2 * values["eta"]}),
                "b": Parameter(0.02, 1.5, {"loss": 1, "d": lambda values: 2 * values["eta"]}),
                "eta": Parameter(0.025, 0.5, positive=False),
            },
            "arXiv:2403.08540",
        ),
        Law(
            "crossing",
            crossing,
            {"c": "c", "method": "method"},
            {
                "E": FLOOR,
                "A1": _scale(c="alpha1"),
                "A2": _scale(c="alpha2"),
                "alpha1": EXPONENT,
                "alpha2": EXPONENT,
            },
            "arXiv:2409.15156",
        ),
        broken_law(1),
        broken_law(2),
        Law("m1", m1, {"x": "x"}, {"b": _scale(x="c"), "c": EXPONENT}, "arXiv:2209.06640"),
        Law("m2", m2, {"x": "x"}, {"b": _scale(x="c"), "c": EXPONENT, "E": FLOOR}, "arXiv:2209.06640"),
        Law(
            "m3",
            m3,
            {"x": "x"},
            {"b": _scale(x="c"), "c": EXPONENT, "gamma": Parameter(1e-3, 10.0, {"x": -1})},
            "arXiv:2209.06640",
        ),
        Law(
            "m4",
            m4,
            {"x": "x"},
            {
                "b": Parameter(
                    0.02, 2.0, {"loss": lambda values: 1 - values["alpha"], "x": lambda values: values["c"]}
                ),
                "c": EXPONENT,
                "E": FLOOR,
                "E0": Parameter(1.5, 10.0, {"loss": 1}),
                "alpha": Parameter(0.1, 3.0),
            },
            "arXiv:2209.06640",
        ),
        Law(
            "routed",
            routed,
            {"n": "n", "experts": "experts"},
            {
                "a": Parameter(-0.2, -0.02, positive=False),
                "b": Parameter(-0.2, -0.02, positive=False),
                "c": Parameter(0.0, 0.02, positive=False),
                "d": Parameter(0.5, 2.0, positive=False),
                "E_start": Parameter(1.1, 4.0),
                "E_max": Parameter(50.0, 1000.0),
            },
            "arXiv:2202.01169",
        ),
        Law(
            "sparse",
            sparse,
            {"n": "n", "d": "d", "sparsity": "sparsity"},
            {
                "A": _scale(n="alpha"),
                "B": _scale(d="beta"),
                "C": _scale(),
                "D": _scale(n="gamma"),
                "E": FLOOR,
                "alpha": EXPONENT,
                "beta": EXPONENT,
                "gamma": EXPONENT,
                "delta": EXPONENT,
                "lam": Parameter(-0.5, 0.5, positive=False),
            },
            "arXiv:2501.12370",
        ),
        Law(
            "pass_rate",
            pass_rate_law,
            {"n": "n"},
            {"c": Parameter(0.05, 10.0, {"n": lambda values: values["alpha"]}), "alpha": EXPONENT},
            "arXiv:2310.03262",
            rises=True,
        ),
        Law(
            "resampling",
            resampling_law,
            {"k": "k"},
            {"ceiling": Parameter(0.5, 5.0, {"loss": 1}), "rate": Parameter(0.01, 10.0, {"k": -1})},
            "arXiv:2411.17501",
            rises=True,
        ),
    )
}
