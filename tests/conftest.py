"""Strict from the first day: x64, no rank promotion, eight CPU devices."""

import os

from theorysim.doctor import switch_bad_fusion_off

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
switch_bad_fusion_off()

import jax  # noqa: E402

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

import socket  # noqa: E402
from functools import partial  # noqa: E402

import jaxtyping  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture
def quick_jit():
    """A jit for what runs once and is compared at 1e-6 or to a standard error: LLVM does not optimise its program.

    That halves the time to compile it, which is most of such a test. Others have the program that users run.
    """
    return partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture
def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]


@pytest.fixture
def untyped():
    """As users call it: without the tests' own type checks, whose errors would come first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def _strict_promotion(request):
    """Theory converts dtypes where it means to; optax and flax rely on implicit promotion."""
    if request.path.parent.name in ("infinite", "scaling") and not request.node.get_closest_marker("promotion"):
        with jax.numpy_dtype_promotion("strict"):
            yield
    else:
        yield
