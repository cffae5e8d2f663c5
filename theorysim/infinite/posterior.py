"""What Bayesian networks of infinite width have learnt: Gaussian processes, and their mixtures over a scale.

With K the NNGP covariance, a network whose readout weights have a common variance drawn from a prior is a Gaussian
process of covariance scale * K, mixed over the scale: an inverse gamma prior makes it Student's t
(Lee, Yun, Yang & Lee, arXiv:2107.01408). Outlying data then widen the prediction, which a Gaussian process cannot.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, logsumexp
from jaxtyping import Array, Float

from theorysim.checks import is_traced, require_finite, require_nonnegative, require_positive
from theorysim.infinite.kernel import Kernels
from theorysim.typing import ScalarLike


class Posterior(NamedTuple):
    """Mean and covariance of the outputs at m inputs, and the log density of the targets."""

    mean: Float[Array, " m"]
    covariance: Float[Array, "m m"]
    log_evidence: Float[Array, ""]


class StudentT(NamedTuple):
    """A multivariate t law: location, scale matrix, degrees of freedom; and the log density of the targets."""

    mean: Float[Array, " m"]
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

    mean: Float[Array, " m"]
    covariance: Float[Array, "m m"]
    weights: Float[Array, " scales"]
    log_evidence: Float[Array, ""]


def gaussian(
    kernel: Float[Array, "n n"],
    cross: Float[Array, "m n"],
    prior: Float[Array, "m m"],
    targets: Float[Array, " n"],
    *,
    noise_var: ScalarLike = 0.0,
) -> Posterior:
    """Posterior of a Gaussian process: K_x (K + noise_var)^-1 y and K_xx - K_x (K + noise_var)^-1 K_x^T.

    Also the law of networks that train their readout only, from a random start, to the end (arXiv:1902.06720).

    **Arguments:** `kernel` = K(X, X), `cross` = K(x, X), `prior` = K(x, x).

    **Raises:** `ValueError` for a kernel too near to singular for its dtype, or entries that are not finite.
    """
    return _posterior(_factor(kernel, noise_var), cross, prior, targets)


def student(
    kernel: Float[Array, "n n"],
    cross: Float[Array, "m n"],
    prior: Float[Array, "m m"],
    targets: Float[Array, " n"],
    *,
    shape: ScalarLike,
    rate: ScalarLike,
) -> StudentT:
    """Posterior of the process of covariance scale * K, with 1 / scale ~ Gamma(shape, rate) (arXiv:2107.01408).

    A t law of 2 shape + n degrees of freedom about the mean of the Gaussian process; its scale matrix is that process's
    covariance times (2 rate + y K^-1 y) / (2 shape + n). The arguments are those of [`gaussian`]; without data
    (n = 0) it is the prior, of 2 shape degrees of freedom and scale matrix rate / shape K.

    **Raises:** `ValueError` for `shape` or `rate` <= 0, and as [`gaussian`].
    """
    require_positive(shape=shape, rate=rate)
    factor = _factor(kernel, 0.0)
    posterior = _posterior(factor, cross, prior, targets)
    n, square = targets.size, _square(factor, targets)
    half = jnp.asarray(shape + n / 2, kernel.dtype)
    log_evidence = (
        gammaln(half)
        - gammaln(jnp.asarray(shape, kernel.dtype))
        - n / 2 * jnp.log(2 * np.pi * rate)
        - jnp.log(factor.values).sum() / 2
        - half * jnp.log1p(square / (2 * rate))
    )
    scale = posterior.covariance * (2 * rate + square) / (2 * half)
    return StudentT(posterior.mean, scale, 2 * half, log_evidence)


def scale_mixture(
    kernel: Float[Array, "n n"],
    cross: Float[Array, "m n"],
    prior: Float[Array, "m m"],
    targets: Float[Array, " n"],
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
    factor = _factor(kernel, noise_var)

    def at(scale):
        scaled = Factor(scale * (factor.values - noise_var) + noise_var, factor.vectors)
        return _posterior(scaled, scale * cross, scale * prior, targets)

    parts = jax.lax.map(at, scales)
    weights = jax.nn.softmax(parts.log_evidence)
    mean = weights @ parts.mean
    spread = parts.mean - mean[None, :]
    covariance = jnp.einsum("s,sij->ij", weights, parts.covariance) + (weights[:, None] * spread).T @ spread
    return Mixture(mean, covariance, weights, logsumexp(parts.log_evidence) - jnp.log(scales.size))


def with_readout_scale(kernels: Kernels, scale: ScalarLike) -> Kernels:
    """The kernels of a network whose readout weights have another variance, from those at variance 1 and no bias there.

    The readout's own part of the tangent kernel does not change: K = scale K_1, Theta = K_1 + scale (Theta_1 - K_1).
    Mixed over the scale, [`dynamics.ensemble`] so becomes the law of trained networks under the prior.

    **Raises:** `ValueError` for a scale <= 0.
    """
    require_positive(scale=scale)
    return Kernels(scale * kernels.nngp, kernels.nngp + scale * (kernels.ntk - kernels.nngp), kernels.angle)


class Factor(NamedTuple):
    """K + noise_var in its eigenbasis."""

    values: Float[Array, " n"]
    vectors: Float[Array, "n n"]


def _factor(kernel: Float[Array, "n n"], noise_var: ScalarLike) -> Factor:
    require_finite(kernel=kernel)
    require_nonnegative(noise_var=noise_var)
    values, vectors = jnp.linalg.eigh(kernel)
    values = values + noise_var
    if not is_traced(values) and values.size:
        condition = float(values[-1] / values[0]) if values[0] > 0 else np.inf
        most = 0.1 / float(jnp.finfo(values.dtype).eps) / values.size
        if not condition < most:
            raise ValueError(
                f"the training kernel ({values.dtype}, n = {values.size}) has the condition number {condition:.1e}, "
                f"more than {most:.1e}: give a noise_var, drop duplicate inputs, or use float64"
            )
    return Factor(values, vectors)


def _square(factor: Factor, targets: Float[Array, " n"]) -> Float[Array, ""]:
    """y K^-1 y."""
    return jnp.sum((factor.vectors.T @ targets) ** 2 / factor.values)


def _posterior(
    factor: Factor, cross: Float[Array, "m n"], prior: Float[Array, "m m"], targets: Float[Array, " n"]
) -> Posterior:
    white = (cross @ factor.vectors) / jnp.sqrt(factor.values)[None, :]
    mean = white @ (factor.vectors.T @ targets / jnp.sqrt(factor.values))
    log_evidence = -(_square(factor, targets) + jnp.log(factor.values).sum() + targets.size * np.log(2 * np.pi)) / 2
    return Posterior(mean, prior - white @ white.T, log_evidence)
