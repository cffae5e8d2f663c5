"""Bayesian networks of finite width, sampled."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from theorysim.typing import Scalar, ScalarLike

Kernel = Callable[[Float[Array, "n width"]], Float[Array, "n n"]]


class PosteriorDraws(NamedTuple):
    """Gram matrices F F^T / width and kernels of the last hidden layer, draw by draw; share of accepted proposals."""

    grams: Float[Array, "draws n n"]
    kernels: Float[Array, "draws n n"]
    acceptance: Scalar


def sample_posterior(
    kernel: Kernel,
    x: Float[Array, "n d"],
    targets: Float[Array, "n outputs"],
    *,
    width: int,
    depth: int,
    nu: ScalarLike,
    noise_var: ScalarLike,
    weight_var: ScalarLike = 1.0,
    bias_var: ScalarLike = 0.0,
    key: Array,
    draws: int,
    warmup: int,
    step: float = 0.25,
    leaps: int = 6,
) -> PosteriorDraws:
    """One Markov chain through the hidden layers of a network of which the readout is integrated out.

    Layer l draws the columns of its preactivations F_l (n x width) from N(0, K_l), with K_1 = weight_var x x^T / d +
    bias_var and K_{l+1} = weight_var kernel(F_l) + bias_var. The outputs follow N(0, K + noise_var); each column of
    the targets is observed width / nu times, so that data and prior weigh alike at any width. With
    kernel(F) = phi(F) phi(F)^T / width this is a network of neurons phi; with the dual of phi at F F^T / width, a deep
    Gaussian process.

    Hamiltonian Monte Carlo (Duane et al. 1987) over the layers' white noise, whose prior is a rotation of phase space
    by `step`, followed exactly; `leaps` rotations make a proposal. The first `warmup` draws, from the prior on, are
    left out.
    """
    n, power = len(x), width / jnp.asarray(nu, x.dtype)
    posterior = _Posterior(kernel, x, targets, power, noise_var, weight_var, bias_var)

    def normals(key: Array) -> Array:
        """The momentum, and two numbers more: one draw, in single precision, for each takes seconds to compile."""
        return jax.random.normal(key, (depth * n * width + 2,), jnp.float32).astype(x.dtype)

    def propose(state: _State, key: Array) -> tuple[_State, tuple[Array, Array, Array]]:
        state, accept = _propose(posterior, state, normals(key), step, leaps)
        return state, (state.gram, state.kernel, accept)

    start, chain = jax.random.split(key)
    noise, square = normals(start)[:-2].reshape(depth, n, width), jnp.zeros((n, n), x.dtype)
    # The first proposal is accepted, whatever it is: one copy of the likelihood less to compile.
    state = _State(noise, jnp.asarray(-jnp.inf, x.dtype), jnp.zeros_like(noise), square, square)
    _, (grams, kernels, accepted) = jax.lax.scan(propose, state, jax.random.split(chain, warmup + draws))
    return PosteriorDraws(grams[warmup:], kernels[warmup:], accepted[warmup:].astype(x.dtype).mean())


class _Posterior(NamedTuple):
    """The layers' law, and the likelihood of the targets."""

    kernel: Kernel
    x: Float[Array, "n d"]
    targets: Float[Array, "n outputs"]
    power: Scalar
    noise_var: ScalarLike
    weight_var: ScalarLike
    bias_var: ScalarLike

    def layers(self, noise: Float[Array, "depth n width"]) -> tuple[Array, Array]:
        """Preactivations of the last hidden layer, and their kernel: F_l = chol(K_l) noise_l."""
        # The prior of more inputs than dimensions or neurons is singular.
        jitter = 1e-10 * jnp.eye(len(self.x), dtype=self.x.dtype)

        def layer(carry: tuple[Array, Array], noise: Array) -> tuple[tuple[Array, Array], None]:
            _, prior = carry
            f = jnp.linalg.cholesky(prior + jitter * jnp.trace(prior)) @ noise
            return (f, self.weight_var * self.kernel(f) + self.bias_var), None

        first = self.weight_var * self.x @ self.x.T / self.x.shape[1] + self.bias_var
        return jax.lax.scan(layer, (jnp.zeros_like(noise[0]), first), noise, unroll=True)[0]

    def log_likelihood(self, noise: Float[Array, "depth n width"]) -> tuple[Scalar, tuple[Array, Array]]:
        """`power` log N(targets; 0, K + noise_var), and the Gram matrix and kernel of the last hidden layer."""
        f, prior = self.layers(noise)
        root = jnp.linalg.cholesky(prior + self.noise_var * jnp.eye(len(f), dtype=f.dtype))
        white = solve_triangular(root, self.targets, lower=True)
        logs = jnp.log(jnp.diagonal(root)).sum()
        value = -self.power * (jnp.square(white).sum() / 2 + self.targets.shape[1] * logs)
        return value, (f @ f.T / f.shape[1], prior)


class _State(NamedTuple):
    noise: Float[Array, "depth n width"]
    log_likelihood: Scalar
    force: Float[Array, "depth n width"]
    gram: Float[Array, "n n"]
    kernel: Float[Array, "n n"]

    @classmethod
    def at(cls, noise: Array, posterior: _Posterior) -> "_State":
        (value, (gram, kernel)), force = jax.value_and_grad(posterior.log_likelihood, has_aux=True)(noise)
        return cls(noise, value, force, gram, kernel)

    def energy(self, momentum: Array) -> Scalar:
        return (jnp.square(self.noise).sum() + jnp.square(momentum).sum()) / 2 - self.log_likelihood


def _propose(
    posterior: _Posterior, state: _State, normals: Float[Array, " numbers"], step: float, leaps: int
) -> tuple[_State, Array]:
    """One proposal of Hamiltonian Monte Carlo, and whether it is accepted."""
    momentum = normals[:-2].reshape(state.noise.shape)
    energy = state.energy(momentum)

    def leap(carry: tuple[_State, Array], _: None) -> tuple[tuple[_State, Array], None]:
        return _leap(posterior, *carry, step), None

    (ahead, momentum), _ = jax.lax.scan(leap, (state, momentum), length=leaps)
    # Minus half a chi-square of two is the logarithm of a uniform. A proposal that is not a number is refused.
    accept = -jnp.square(normals[-2:]).sum() / 2 < energy - ahead.energy(momentum)
    return jax.tree.map(lambda new, old: jnp.where(accept, new, old), ahead, state), accept


def _leap(posterior: _Posterior, state: _State, momentum: Array, step: float) -> tuple[_State, Array]:
    """Half a kick of the likelihood, a rotation under the prior, half a kick."""
    momentum = momentum + step / 2 * state.force
    noise = jnp.cos(step) * state.noise + jnp.sin(step) * momentum
    momentum = jnp.cos(step) * momentum - jnp.sin(step) * state.noise
    state = _State.at(noise, posterior)
    return state, momentum + step / 2 * state.force
