"""Learning curves of kernel regression, from the spectrum of the kernel and the target's power in each mode.

A kernel K(x, x') = sum_i eta_i phi_i(x) phi_i(x') with orthonormal phi_i, a target sum_i a_i phi_i and the estimator
(K + ridge)^-1 y on P samples: the mean square error is a function of eta, a^2, P and the ridge alone (Bordelon, Canatar
& Pehlevan, arXiv:2002.02561; Canatar et al., arXiv:2006.13198; Simon et al., arXiv:2110.03922). It is exact for
Gaussian phi and many samples and modes, a few percent off at P = 10, and holds for real data surprisingly well.

Everything takes numbers P and ridges that may be traced: `jax.vmap` makes curves of it, `jax.grad` exponents. Give
long spectra to jitted functions as arguments: what they close over, XLA tries to fold into a constant, for minutes.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from theorysim.checks import is_traced, require_finite, require_nonnegative, require_positive
from theorysim.root import root
from theorysim.scaling.likelihood import maximise
from theorysim.typing import Scalar, ScalarLike


class Spectrum(NamedTuple):
    """Eigenvalues of a kernel and the target's power a_i^2 in each mode, in any order.

    Modes that are not listed one by one, of eigenvalues too small to be learned, count as a whole: by the sum of their
    eigenvalues, which acts as a ridge, and of their power, which stays an error.
    """

    eigenvalues: Float[Array, " modes"]
    power: Float[Array, " modes"]
    tail_eigenvalues: ScalarLike = 0.0
    tail_power: ScalarLike = 0.0


class LearningCurve(NamedTuple):
    """Mean square errors at one number of samples, and what they follow from.

    `error`: of the prediction on new inputs, without label noise. `train_error`: on the samples, with their noise.
    `kappa`: the effective ridge: a mode is learned where samples * eigenvalue > kappa. `gamma`: the sum of squares
    of the shares learned, over the samples; the error diverges at 1.
    """

    error: Scalar
    train_error: Scalar
    kappa: Scalar
    gamma: Scalar


def effective_ridge(spectrum: Spectrum, samples: ScalarLike, *, ridge: ScalarLike = 0.0) -> Scalar:
    """The kappa of kappa = ridge + kappa sum_i eta_i / (samples eta_i + kappa) (arXiv:2002.02561).

    Between ridge and ridge + sum eta. Without ridge it is 0 where there are as many samples as modes. Its first two
    derivatives are exact.

    **Raises:** `ValueError` for negative eigenvalues, ridge or samples.
    """
    _check(spectrum, samples, ridge)
    return _effective_ridge(spectrum, samples, ridge)


@jax.jit
def _effective_ridge(spectrum: Spectrum, samples: ScalarLike, ridge: ScalarLike) -> Scalar:
    eta = jnp.asarray(spectrum.eigenvalues)
    ridge, modes = ridge + jnp.asarray(spectrum.tail_eigenvalues, eta.dtype), _modes(eta)
    low = jnp.maximum(ridge, (modes - samples) * jnp.min(jnp.where(eta > 0, eta, jnp.inf)))

    def excess(log_kappa: Array) -> Array:
        kappa = jnp.exp(log_kappa)
        return jnp.log(ridge / kappa + jnp.sum(eta / (samples * eta + kappa)))

    # Without a root, all modes are learned: kappa goes to zero with the ridge.
    return _root(excess, low, ridge + eta.sum(), without=ridge / _positive(1 - modes / samples))


def learning_curve(
    spectrum: Spectrum, samples: ScalarLike, *, ridge: ScalarLike = 0.0, noise_var: ScalarLike = 0.0
) -> LearningCurve:
    """Errors of kernel ridge regression on `samples` inputs, mean over samples (arXiv:2002.02561, arXiv:2110.03922).

    error = [sum_i a_i^2 kappa^2 / (kappa + P eta_i)^2 + noise_var gamma] / (1 - gamma), where kappa is
    [`effective_ridge`] and gamma = sum_i P eta_i^2 / (kappa + P eta_i)^2. The ridge is added to K, not to K / P.

    **Raises:** `ValueError` for negative eigenvalues, powers, samples, ridge or noise_var.
    """
    _check(spectrum, samples, ridge)
    require_nonnegative(noise_var=noise_var)
    return _learning_curve(spectrum, samples, ridge, noise_var)


@jax.jit
def _learning_curve(spectrum: Spectrum, samples: ScalarLike, ridge: ScalarLike, noise_var: ScalarLike) -> LearningCurve:
    kappa = _effective_ridge(spectrum, samples, ridge)
    eta, power = jnp.asarray(spectrum.eigenvalues), jnp.asarray(spectrum.power)
    missed = _share(kappa, samples * eta)
    gamma = jnp.sum(jnp.square(1 - missed)) / samples
    # 1 - gamma, as a sum of positive terms.
    all_ridge = ridge + jnp.asarray(spectrum.tail_eigenvalues, eta.dtype)
    idle = jnp.where(kappa > 0, all_ridge / _positive(kappa), 1 - _modes(eta) / samples)
    gap = idle + jnp.sum((1 - missed) * missed) / samples
    failure = power @ jnp.square(missed) + spectrum.tail_power + noise_var * gamma
    error = jnp.where(failure > 0, failure / gap, 0.0)
    shrinkage = jnp.where(kappa > 0, ridge / _positive(kappa), 1 - _modes(eta) / samples)
    return LearningCurve(error, jnp.square(shrinkage) * (error + noise_var), kappa, gamma)


def random_features(
    spectrum: Spectrum,
    samples: ScalarLike,
    features: ScalarLike,
    *,
    ridge: ScalarLike = 0.0,
    noise_var: ScalarLike = 0.0,
) -> LearningCurve:
    """Errors where the kernel is a mean over N random features of covariance K (Simon et al., arXiv:2311.14646).

    Features are sum_i g_i sqrt(eta_i) phi_i / sqrt(N) with g ~ N(0, 1). Many features give [`learning_curve`]; many
    samples the projection of the target on N features, sum_i a_i^2 kappa / (kappa + N eta_i) with
    1 = sum_i eta_i / (N eta_i + kappa). `kappa` is here samples times the threshold of eigenvalues.

    **Raises:** `ValueError` as [`learning_curve`], and for negative features.
    """
    _check(spectrum, samples, ridge)
    require_positive(features=features)
    require_nonnegative(noise_var=noise_var)
    return _random_features(spectrum, samples, features, ridge, noise_var)


@jax.jit
def _random_features(
    spectrum: Spectrum, samples: ScalarLike, features: ScalarLike, ridge: ScalarLike, noise_var: ScalarLike
) -> LearningCurve:
    eta, power = jnp.asarray(spectrum.eigenvalues), jnp.asarray(spectrum.power)
    tail, modes = jnp.asarray(spectrum.tail_eigenvalues, eta.dtype), _modes(eta)
    samples, features, ridge, noise_var = (jnp.asarray(v, eta.dtype) for v in (samples, features, ridge, noise_var))
    fewer = jnp.minimum(samples, features)
    low = _effective_ridge(spectrum, fewer, jnp.zeros_like(fewer)) / fewer
    high = (eta.sum() + tail) * (1 / samples + 1 / features) + ridge / samples

    def excess(log_cut: Array) -> Array:
        cut = jnp.exp(log_cut)
        z = jnp.sum(eta / (eta + cut)) + tail / cut
        return jnp.log((z + _left_over(samples, features, ridge * features / cut)) / jnp.minimum(samples, features))

    without = ridge * features / _positive((samples - modes) * (features - modes))
    cut = _root(excess, low, high, without=without)
    missed = _share(cut, eta)
    z = jnp.sum(1 - missed) + jnp.where(cut > 0, tail / _positive(cut), 0.0)
    half = jnp.sum((1 - missed) * missed) + jnp.where(cut > 0, tail / _positive(cut), 0.0)  # z - q
    n, k = samples, features
    less = jnp.where(cut > 0, _left_over(n, k, ridge * k / _positive(cut)), jnp.minimum(n, k) - z)
    more = less + jnp.abs(n - k)
    n_left, k_left = jnp.where(n < k, less, more), jnp.where(n < k, more, less)
    # 1 - gamma, as a sum of positive terms; the share of variance that is learned is gamma.
    gap = (n_left * k_left + half * (n_left + k_left)) / (n * (k_left + half))
    taken = k_left / (k_left + half)
    failure = power @ (missed * (1 - (1 - missed) * taken)) + spectrum.tail_power + noise_var * (1 - gap)
    error = jnp.where(failure > 0, failure / gap, 0.0)
    shrinkage = n_left / n
    return LearningCurve(error, jnp.square(shrinkage) * (error + noise_var), n * cut, 1 - gap)


class Exponents(NamedTuple):
    """By how much each resource lowers the error where the others are plentiful: error ~ resource^-exponent."""

    samples: Scalar
    features: Scalar
    time: Scalar
    compute: Scalar


def power_law(eigenvalue_decay: ScalarLike, target_decay: ScalarLike, *, modes: int) -> Spectrum:
    """eta_i = i^-b and a_i^2 = i^-a to infinity: so many modes one by one, the others as a tail.

    Both sums beyond `modes` are exact to modes^-4, relatively. Use modes far above the samples^b / b that are learned:
    what is neglected is a share modes^-b samples / kappa of the tail.

    **Raises:** `ValueError` for a decay of 1 or less, whose sum diverges.
    """
    _require_summable(eigenvalue_decay=eigenvalue_decay, target_decay=target_decay)
    log_rank = jnp.log(jnp.arange(1.0, modes + 1))
    return Spectrum(
        jnp.exp(-eigenvalue_decay * log_rank),
        jnp.exp(-target_decay * log_rank),
        _tail_sum(eigenvalue_decay, modes),
        _tail_sum(target_decay, modes),
    )


def power_law_exponents(eigenvalue_decay: ScalarLike, target_decay: ScalarLike) -> Exponents:
    """Of eta_i ~ i^-b and a_i^2 ~ i^-a, without ridge or noise (Bordelon, Atanasov & Pehlevan, arXiv:2402.01092).

    Samples: min(a - 1, 2 b). Features: min(a - 1, b), not the 2 b of the paper: their residual is a projection's, which
    has the first power of kappa / (kappa + N eta). Time of gradient flow: (a - 1) / b. Compute, features times time at
    their best ratio: the harmonic combination of both.
    """
    b, a = jnp.asarray(eigenvalue_decay, float), jnp.asarray(target_decay, float)
    features, time = jnp.minimum(a - 1, b), (a - 1) / b
    return Exponents(jnp.minimum(a - 1, 2 * b), features, time, features * time / (features + time))


def joint_power_law(samples: ScalarLike, features: ScalarLike, decay: ScalarLike) -> Scalar:
    """[`random_features`] at the best ridge where eigenvalues and power are i^-b (Maloney et al., arXiv:2210.16859).

    With s = 1 / b and c = (pi / b) / sin(pi / b), it is c^b z^(1 - b) n k s / D(z) for n samples and k features,
    D = n k - (1 - s) (n + k) z + (1 - 2 s) z^2. The best ridge learns z < min(n, k) modes, where it is least: the root
    of (1 - 2 s) (1 + s) z^2 - (1 - s) (n + k) z + (1 - s) n k = 0. Sums over modes are integrals here, which is right
    up to a share of order 1 / z. Samples and features change places; many of either leave the power 1 - b of the other.

    ```python
    from theorysim.scaling import kernel_regression

    law = kernel_regression.joint_power_law(200.0, 500.0, 1.5)
    spectrum = kernel_regression.power_law(1.5, 1.5, modes=10**5)
    ridges = jnp.geomspace(1e-3, 10, 60)
    errors = jax.vmap(lambda ridge: kernel_regression.random_features(spectrum, 200, 500, ridge=ridge).error)(ridges)
    assert abs(errors.min() / law - 1) < 2 / 200
    ```

    **Raises:** `ValueError` for samples or features of 0 or less, and a decay of 1 or less.
    """
    require_positive(samples=samples, features=features)
    _require_summable(decay=decay)
    n, k, b = (jnp.asarray(value, float) for value in (samples, features, decay))
    s = 1 / b
    square, line, product = (1 - 2 * s) * (1 + s), (1 - s) * (n + k), (1 - s) * n * k
    z = 2 * product / (line + jnp.sqrt(jnp.square(line) - 4 * square * product))
    left = n * k - line * z + (1 - 2 * s) * jnp.square(z)
    return (jnp.pi * s / jnp.sin(jnp.pi * s)) ** b * z ** (1 - b) * n * k * s / left


def measured_spectrum(kernel: Float[Array, "n n"], targets: Float[Array, "n *outputs"]) -> Spectrum:
    """Of the uniform law over n inputs with kernel matrix K: eigenvalues of K / n, and the targets' power in each.

    Eigenvalues are in decreasing order, powers summed over outputs; together they are the mean square target.

    **Raises:** `ValueError` where a value is not finite.
    """
    require_finite(kernel=kernel, targets=targets)
    n = len(kernel)
    values, vectors = jnp.linalg.eigh(kernel)
    power = jnp.square(vectors.T @ targets.reshape(n, -1)).sum(1) / n
    return Spectrum(jnp.maximum(values[::-1] / n, 0), power[::-1])


def held_out_error(spectrum: Spectrum, samples: ScalarLike, *, ridge: ScalarLike = 0.0) -> Scalar:
    """Mean square error on the n - samples inputs left over, where `samples` of n are drawn to learn from.

    `spectrum` is [`measured_spectrum`] of all n, whose targets may be noisy. Drawing without replacement from n inputs
    is a free compression of K + ridge, not a Gaussian sample: the error on what is left over is that of
    [`learning_curve`] without ridge at the eigenvalues eta + ridge / n, over 1 - samples / n. For few of many inputs it
    is [`learning_curve`] itself.

    **Raises:** `ValueError` for samples that leave no input over.
    """
    n = len(spectrum.eigenvalues)
    require_positive(samples=samples)
    if not is_traced(samples) and not (np.asarray(samples) < n).all():
        raise ValueError(f"samples={samples} of {n} inputs: leave at least one to predict")
    shifted = Spectrum(spectrum.eigenvalues + jnp.asarray(ridge) / n, spectrum.power)
    return learning_curve(shifted, samples).error / (1 - samples / n)


def solve_used(
    kernel: Float[Array, "n n"], targets: Float[Array, "n *outputs"], used: Bool[Array, " n"], *, ridge: ScalarLike
) -> Float[Array, "n *outputs"]:
    """(K + ridge)^-1 targets of the inputs that are `used`, and zero for the others.

    They are masked, not left out, so that training sets of all sizes share one program.
    """
    kept = used.astype(kernel.dtype)
    block = kernel * kept[:, None] * kept[None] + jnp.diag(ridge * kept + (1 - kept))
    return jax.scipy.linalg.solve(block, targets * kept.reshape(-1, *(1,) * (targets.ndim - 1)), assume_a="pos")


class Decay(NamedTuple):
    """The exponent of values ~ rank^-exponent over a window of ranks, and its standard error.

    The error joins that of the scatter about the line and half the difference between the window's two halves, as far
    as scatter does not explain it.
    """

    exponent: Scalar
    standard_error: Scalar


def decay(values: Float[Array, " ranks"], first: int, last: int) -> Decay:
    """Fit a power of the rank to values at the ranks `first` to `last`, counted from 1, by gamma regression.

    It maximises the likelihood of values with a mean c rank^-exponent and a standard deviation in proportion to it:
    squared coefficients scatter so (chi^2), and may vanish.

    **Raises:** `ValueError` for a window outside of the ranks, or of less than 8.
    """
    if not 1 <= first <= last - 7 < len(values):
        raise ValueError(f"first={first}, last={last} of {len(values)} ranks: give a window of 8 or more among them")
    middle = max(first + 3, min(round((first * last) ** 0.5), last - 4))
    rank = jnp.arange(first, last + 1)
    windows = jnp.stack([rank > 0, rank <= middle, rank > middle])
    return _decay(jnp.log(rank.astype(values.dtype)), values[first - 1 : last], windows)


@jax.jit
def _decay(x: Array, values: Array, windows: Array) -> Decay:
    """Over the first of the windows; the others are its halves."""
    lines = jax.vmap(_gamma_line, (None, None, 0))(x, values, windows)
    whole, low, high = (Decay(exponent, error) for exponent, error in zip(*lines, strict=True))
    by_chance = jnp.square(low.standard_error) + jnp.square(high.standard_error)
    drift = jnp.maximum(jnp.square(low.exponent - high.exponent) - by_chance, 0) / 4
    return Decay(whole.exponent, jnp.sqrt(jnp.square(whole.standard_error) + drift))


def predicted_exponent(spectrum: Spectrum, first: int, last: int) -> Decay:
    """Of the error in the samples, min(a - 1, 2 b), from the decays of the spectrum over a window of ranks.

    Where the decays are no powers of the rank, [`held_out_error`] is the prediction, and its slope a local exponent.
    """
    eigenvalues, power = decay(spectrum.eigenvalues, first, last), decay(spectrum.power, first, last)
    aligned = power.exponent - 1 < 2 * eigenvalues.exponent
    return Decay(
        jnp.where(aligned, power.exponent - 1, 2 * eigenvalues.exponent),
        jnp.where(aligned, power.standard_error, 2 * eigenvalues.standard_error),
    )


def _gamma_line(x: Array, values: Array, used: Array) -> Decay:
    """The line that maximises minus the sum of log mean + value / mean, from the one through the logarithms."""
    weights = used.astype(values.dtype)
    values, count = values * weights, weights.sum()
    design = jnp.stack([weights, weights * (x - weights @ x / count)], 1)
    inverse = jnp.linalg.inv(design.T @ design)

    def log_likelihood(line: Array) -> Scalar:
        return -jnp.sum(design @ line + values * jnp.exp(-design @ line))

    def information(line: Array) -> Array:
        return design.T @ ((values * jnp.exp(-design @ line))[:, None] * design)

    start = inverse @ (design.T @ jnp.log(jnp.maximum(values, jnp.finfo(values.dtype).tiny)))
    line = jax.lax.stop_gradient(maximise(log_likelihood, information, jax.lax.stop_gradient(start)).point)
    # One more step, which moves nothing, carries the derivatives by the implicit function theorem.
    line = line + jnp.linalg.solve(information(line), jax.grad(log_likelihood)(line))
    scatter = (weights * jnp.square(values * jnp.exp(-design @ line) - 1)).sum() / (count - 2)
    return Decay(-line[1], jnp.sqrt(scatter * inverse[1, 1]))


def _root(excess: Callable[[Array], Array], low: Array, high: Array, *, without: Array) -> Scalar:
    """exp(u) with excess(u) = 0; `without` where the bracket's lower end is zero."""
    solvable = (low > 0) & (high > 0)

    def kept(u: Array) -> Array:
        return jnp.where(solvable, excess(u), u)

    # Both ends may be the root itself: a margin keeps rounding from cutting it off.
    low, high = (jnp.log(jnp.where(solvable, end, 1.0)) for end in (low, high))
    return jnp.where(solvable, jnp.exp(root(kept, low - 0.5, high + 0.5)), without)


def _left_over(n: Array, k: Array, product: Array) -> Array:
    """min(n, k) - z, where (n - z) (k - z) = product."""
    apart = jnp.abs(n - k)
    whole = apart + jnp.sqrt(jnp.square(apart) + 4 * product)
    return 2 * product / _positive(whole)


def _share(part: Array, rest: Array) -> Array:
    """Share part / (part + rest), 1 where both vanish."""
    whole = part + rest
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1.0), 1.0)


def _positive(value: Array) -> Array:
    """The value where it is positive, else 1: a denominator that no branch of a `where` trips over."""
    return jnp.where(value > 0, value, 1.0)


def _require_summable(**decays: ScalarLike) -> None:
    for name, value in decays.items():
        if not is_traced(value) and not value > 1:
            raise ValueError(f"{name}={value}: give a value > 1, or the sum over modes diverges")


def _tail_sum(exponent: ScalarLike, modes: int) -> Array:
    """Sum of i^-exponent over i > modes, by Euler and Maclaurin's formula about the middle."""
    x = modes + 0.5
    return x ** (1 - jnp.asarray(exponent, float)) * (1 / (exponent - 1) - exponent / (24 * x**2))


def _modes(eta: Array) -> Array:
    return jnp.sum(eta > 0).astype(eta.dtype)


def _check(spectrum: Spectrum, samples: ScalarLike, ridge: ScalarLike) -> None:
    require_nonnegative(
        eigenvalues=spectrum.eigenvalues,
        power=spectrum.power,
        tail_eigenvalues=spectrum.tail_eigenvalues,
        tail_power=spectrum.tail_power,
        ridge=ridge,
    )
    require_positive(samples=samples)
    if jnp.shape(spectrum.eigenvalues) != jnp.shape(spectrum.power):
        raise ValueError(
            f"eigenvalues have shape {jnp.shape(spectrum.eigenvalues)}, power {jnp.shape(spectrum.power)}: "
            "give one of each per mode"
        )
