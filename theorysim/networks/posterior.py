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
    n = len(x)
    power = width / jnp.asarray(nu, x.dtype)
    # The prior of more inputs than dimensions or neurons is singular.
    jitter = 1e-10 * jnp.eye(n, dtype=x.dtype)

    def layers(noise):
        """Preactivations of the last hidden layer, and their kernel."""

        def layer(carry, noise):
            _, prior = carry
            f = jnp.linalg.cholesky(prior + jitter * jnp.trace(prior)) @ noise
            return (f, weight_var * kernel(f) + bias_var), None

        first = jnp.zeros((n, width), x.dtype), weight_var * x @ x.T / x.shape[1] + bias_var
        return jax.lax.scan(layer, first, noise, unroll=True)[0]

    def log_likelihood(noise):
        f, prior = layers(noise)
        root = jnp.linalg.cholesky(prior + noise_var * jnp.eye(n, dtype=x.dtype))
        white = solve_triangular(root, targets, lower=True)
        logs = jnp.log(jnp.diagonal(root)).sum()
        return -power * (jnp.square(white).sum() / 2 + targets.shape[1] * logs), (f @ f.T / width, prior)

    evaluate = jax.value_and_grad(log_likelihood, has_aux=True)

    def white(key):
        """The momentum, and two numbers more: one draw, in single precision, for each takes seconds to compile."""
        return jax.random.normal(key, (depth * n * width + 2,), jnp.float32).astype(x.dtype)

    def propose(state, key):
        normal = white(key)
        momentum = normal[:-2].reshape(state.noise.shape)
        ahead, energy = state, state.energy(momentum)
        (ahead, momentum), _ = jax.lax.scan(leap, (ahead, momentum), length=leaps)
        # Minus half a chi-square of two is the logarithm of a uniform. A proposal that is not a number is refused.
        accept = -jnp.square(normal[-2:]).sum() / 2 < energy - ahead.energy(momentum)
        state = jax.tree.map(lambda new, old: jnp.where(accept, new, old), ahead, state)
        return state, (state.gram, state.kernel, accept)

    def leap(carry, _):
        state, momentum = carry
        momentum = momentum + step / 2 * state.force
        noise = jnp.cos(step) * state.noise + jnp.sin(step) * momentum
        momentum = jnp.cos(step) * momentum - jnp.sin(step) * state.noise
        state = _State.at(noise, evaluate)
        return (state, momentum + step / 2 * state.force), None

    start, chain = jax.random.split(key)
    noise, square = white(start)[:-2].reshape(depth, n, width), jnp.zeros((n, n), x.dtype)
    # The first proposal is accepted, whatever it is: one copy of the likelihood less to compile.
    state = _State(noise, jnp.asarray(-jnp.inf, x.dtype), jnp.zeros_like(noise), square, square)
    _, (grams, kernels, accepted) = jax.lax.scan(propose, state, jax.random.split(chain, warmup + draws))
    return PosteriorDraws(grams[warmup:], kernels[warmup:], accepted[warmup:].astype(x.dtype).mean())


class _State(NamedTuple):
    noise: Float[Array, "depth n width"]
    log_likelihood: Scalar
    force: Float[Array, "depth n width"]
    gram: Float[Array, "n n"]
    kernel: Float[Array, "n n"]

    @classmethod
    def at(cls, noise: Array, evaluate: Callable[[Array], tuple]) -> "_State":
        (value, (gram, kernel)), force = evaluate(noise)
        return cls(noise, value, force, gram, kernel)

    def energy(self, momentum: Array) -> Scalar:
        return (jnp.square(self.noise).sum() + jnp.square(momentum).sum()) / 2 - self.log_likelihood
