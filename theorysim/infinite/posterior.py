"""What Bayesian networks of infinite width have learnt: Gaussian processes, and their mixtures over a scale.

With K the NNGP covariance, a network whose readout weights have a common variance drawn from a prior is a Gaussian
process of covariance scale * K, mixed over the scale: an inverse gamma prior makes it Student's t
(Lee, Yun, Yang & Lee, arXiv:2107.01408). Outlying data then widen the prediction, which a Gaussian process cannot.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import gammaln, logsumexp
from jaxtyping import Array, Float
from scipy.linalg import lapack

from theorysim.checks import (
    is_traced,
    require_finite,
    require_nonnegative,
    require_positive,
    require_shape,
    require_targets,
)
from theorysim.infinite.kernel import Kernels
from theorysim.infinite.spectral import eigenbasis, times
from theorysim.typing import ScalarLike


class Posterior(NamedTuple):
    """Mean of each output at m inputs, their common covariance, and the log density of all targets."""

    mean: Float[Array, "m *outputs"]
    covariance: Float[Array, "m m"]
    log_evidence: Float[Array, ""]


class StudentT(NamedTuple):
    """A multivariate t law: location, scale matrix, degrees of freedom; and the log density of the targets.

    Outputs share the scale: each has this law, and they are uncorrelated but not independent.
    """

    mean: Float[Array, "m *outputs"]
    scale: Float[Array, "m m"]
    degrees_of_freedom: Float[Array, ""]
    log_evidence: Float[Array, ""]

    @property
    def covariance(self) -> Float[Array, "m m"]:
        """The scale matrix times nu / (nu - 2); infinite at nu <= 2."""
        nu = self.degrees_of_freedom
        return self.scale * jnp.where(nu > 2, nu / jnp.where(nu > 2, nu - 2, 1.0), jnp.inf)


class Mixture(NamedTuple):
    """A mixture of Gaussian posteriors: moments of the whole, weights of the parts, log density of the targets."""

    mean: Float[Array, "m *outputs"]
    covariance: Float[Array, "*outputs m m"]
    weights: Float[Array, " scales"]
    log_evidence: Float[Array, ""]


def gaussian(
    kernel: Float[Array, "n n"],
    cross: Float[Array, "m n"],
    prior: Float[Array, "m m"],
    targets: Float[Array, "n *outputs"],
    *,
    noise_var: ScalarLike = 0.0,
) -> Posterior:
    """Posterior of a Gaussian process: K_x (K + noise_var)^-1 y and K_xx - K_x (K + noise_var)^-1 K_x^T.

    Also the law of networks that train their readout only, from a random start, to the end (arXiv:1902.06720).

    **Arguments:** `kernel` = K(X, X), `cross` = K(x, X), `prior` = K(x, x). Several outputs are independent.

    **Raises:** `ValueError` for a kernel too near to singular for its dtype, entries that are not finite, and shapes
    that do not belong together. Under a trace, where a kernel is not positive definite, the result is NaN.
    """
    _check(kernel, cross, prior, targets, noise_var)
    return _posterior(_factor(kernel, noise_var), cross, prior, targets)


def student(
    kernel: Float[Array, "n n"],
    cross: Float[Array, "m n"],
    prior: Float[Array, "m m"],
    targets: Float[Array, "n *outputs"],
    *,
    shape: ScalarLike,
    rate: ScalarLike,
) -> StudentT:
    """Posterior of the process of covariance scale * K, with 1 / scale ~ Gamma(shape, rate) (arXiv:2107.01408).

    A t law of 2 shape + n degrees of freedom about the mean of the Gaussian process; its scale matrix is that process's
    covariance times (2 rate + y K^-1 y) / (2 shape + n), n counting all targets. The arguments are those of
    [`gaussian`]; without data (n = 0) it is the prior, of 2 shape degrees of freedom and scale matrix rate / shape K.

    **Raises:** `ValueError` for `shape` or `rate` <= 0, and as [`gaussian`].
    """
    require_positive(shape=shape, rate=rate)
    _check(kernel, cross, prior, targets)
    factor = _factor(kernel, 0.0)
    posterior = _posterior(factor, cross, prior, targets)
    n, square = targets.size, jnp.square(_whiten(factor, targets)).sum()
    half = jnp.asarray(shape + n / 2, kernel.dtype)
    log_evidence = (
        gammaln(half)
        - gammaln(jnp.asarray(shape, kernel.dtype))
        - n / 2 * jnp.log(2 * np.pi * rate)
        - _log_det(factor) * _outputs(targets) / 2
        - half * jnp.log1p(square / (2 * rate))
    )
    scale = posterior.covariance * (2 * rate + square) / (2 * half)
    return StudentT(posterior.mean, scale, 2 * half, log_evidence)


def scale_mixture(
    kernel: Float[Array, "n n"],
    cross: Float[Array, "m n"],
    prior: Float[Array, "m m"],
    targets: Float[Array, "n *outputs"],
    *,
    scales: Float[Array, " scales"],
    noise_var: ScalarLike = 0.0,
) -> Mixture:
    """Posterior under any prior of the scale, given by draws from it: each weighs as much as it explains the targets.

    `scales` are samples (or quantiles at equal steps) of the prior: importance sampling, arXiv:2107.01408, section 4.

    ```python
    from scipy.stats import halfcauchy
    from theorysim.infinite import fully_connected, posterior, relu

    x, test = jnp.array([[1.0, 0.2], [-0.3, 1.0]]), jnp.array([[0.5, 0.5]])
    kernel, cross, prior = (fully_connected(relu, *pair, depth=2).nngp for pair in ((x,), (test, x), (test,)))
    scales = jnp.asarray(halfcauchy.ppf((np.arange(200) + 0.5) / 200))
    mixed = posterior.scale_mixture(kernel, cross, prior, jnp.array([1.0, -1.0]), scales=scales)
    print(mixed.mean, mixed.covariance)
    ```

    **Raises:** `ValueError` for scales <= 0, and as [`gaussian`].
    """
    require_positive(scales=scales)
    _check(kernel, cross, prior, targets, noise_var)
    modes = eigenbasis(kernel)
    noise = jnp.asarray(noise_var, kernel.dtype)
    if not is_traced(modes.values):
        _require_regular(float((modes.values[-1] + noise) / (modes.values[0] + noise)), kernel)
    columns = targets.reshape(len(targets), -1)

    def at(scale):
        weighted = times(_inverse, jnp.concatenate([scale * cross, columns.T]), modes, scale, noise)
        at_x, at_y = weighted[: len(cross)], weighted[len(cross) :]
        square = jnp.sum(at_y * columns.T)
        log_evidence = _log_density(square, jnp.log(scale * modes.values + noise).sum(), targets)
        return Posterior(at_x @ columns, scale * (prior - at_x @ cross.T), log_evidence)

    parts = jax.lax.map(at, scales)
    weights = jax.nn.softmax(parts.log_evidence)
    mean = jnp.einsum("s,sik->ik", weights, parts.mean)
    spread = parts.mean - mean[None]
    covariance = jnp.einsum("s,sij->ij", weights, parts.covariance)[None]
    covariance = covariance + jnp.einsum("s,sik,sjk->kij", weights, spread, spread)
    log_evidence = logsumexp(parts.log_evidence) - jnp.log(scales.size)
    if targets.ndim == 1:
        return Mixture(mean[:, 0], covariance[0], weights, log_evidence)
    return Mixture(mean, covariance, weights, log_evidence)


def with_readout_scale(kernels: Kernels, scale: ScalarLike) -> Kernels:
    """The kernels of a network whose readout weights have another variance, from those at variance 1 and no bias there.

    The readout's own part of the tangent kernel does not change: K = scale K_1, Theta = K_1 + scale (Theta_1 - K_1).
    Mixed over the scale, [`dynamics.ensemble`] so becomes the law of trained networks under the prior.

    **Raises:** `ValueError` for a scale <= 0.
    """
    require_positive(scale=scale)
    return Kernels(scale * kernels.nngp, kernels.nngp + scale * (kernels.ntk - kernels.nngp), kernels.angle)


def _check(kernel, cross, prior, targets, noise_var: ScalarLike = 0.0) -> None:
    m, n = cross.shape
    require_shape((n, n), kernel=kernel)
    require_shape((m, m), prior=prior)
    require_targets(n, targets=targets)
    require_finite(kernel=kernel, cross=cross, prior=prior, targets=targets)
    require_nonnegative(noise_var=noise_var)


def _inverse(values: Array, scale: Array, noise_var: Array) -> Array:
    return 1 / (scale * values + noise_var)


def _factor(kernel: Float[Array, "n n"], noise_var: ScalarLike) -> Float[Array, "n n"]:
    """Cholesky's factor of K + noise_var."""
    kernel = kernel + jnp.asarray(noise_var, kernel.dtype) * jnp.eye(len(kernel), dtype=kernel.dtype)
    factor = jnp.linalg.cholesky(kernel)
    if not is_traced(factor) and factor.size:
        estimate = lapack.dpocon if factor.dtype == np.float64 else lapack.spocon
        inverse, _ = estimate(np.asarray(factor), np.linalg.norm(kernel, 1), uplo="L")
        _require_regular(1 / inverse if np.isfinite(factor).all() and inverse else np.inf, kernel)
    return factor


def _require_regular(condition: float, kernel: Float[Array, "n n"]) -> None:
    """Of the K + noise_var that is solved with, whose rounding is sqrt(n) eps of it."""
    most = 0.1 / float(jnp.finfo(kernel.dtype).eps) / max(len(kernel), 1) ** 0.5
    if not 0 < condition < most:
        raise ValueError(
            f"the training kernel ({kernel.dtype}, n = {len(kernel)}) has a condition number of about "
            f"{abs(condition):.1e}, more than {most:.1e}: give a noise_var, drop duplicate inputs, or use float64"
        )


def _whiten(factor: Float[Array, "n n"], columns: Float[Array, "n *columns"]) -> Float[Array, "n *columns"]:
    return solve_triangular(factor, columns, lower=True)


def _log_det(factor: Float[Array, "n n"]) -> Float[Array, ""]:
    return 2 * jnp.log(jnp.diagonal(factor)).sum()


def _outputs(targets: Float[Array, "n *outputs"]) -> int:
    return targets.shape[1] if targets.ndim == 2 else 1


def _log_density(square: Array, log_det: Array, targets: Float[Array, "n *outputs"]) -> Float[Array, ""]:
    return -(square + _outputs(targets) * log_det + targets.size * np.log(2 * np.pi)) / 2


def _posterior(
    factor: Float[Array, "n n"],
    cross: Float[Array, "m n"],
    prior: Float[Array, "m m"],
    targets: Float[Array, "n *outputs"],
) -> Posterior:
    white, white_targets = _whiten(factor, cross.T), _whiten(factor, targets)
    log_evidence = _log_density(jnp.square(white_targets).sum(), _log_det(factor), targets)
    return Posterior(white.T @ white_targets, prior - white.T @ white, log_evidence)
