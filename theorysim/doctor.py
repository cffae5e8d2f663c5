"""Whether this machine computes right numbers: jaxlib 0.10.2 does not on CPU, and says nothing.

https://github.com/jax-ml/jax/issues/39103: a matrix-vector product under `vmap`, followed by a reduction,
is wrong in most rows of a large batch. That is how a grid of hyperparameters is computed.
"""

import os
import platform
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

KNOWN_BAD_JAXLIB = ("0.10.2",)
FUSION_OFF = "--xla_cpu_experimental_ynn_fusion_type="
REMEDY = f"install another one (pip install 'jaxlib==0.10.1'), or set XLA_FLAGS={FUSION_OFF} before jax computes"


class WrongNumbersError(RuntimeError):
    """This machine computes wrong numbers."""


class Check(NamedTuple):
    """One kernel against NumPy: how many of its rows are wrong."""

    kernel: str
    rows: int
    wrong: int


def is_known_bad() -> bool:
    """Whether jaxlib is a release with the bug, and the fusion that has it is on."""
    return version("jaxlib") in KNOWN_BAD_JAXLIB and FUSION_OFF not in os.environ.get("XLA_FLAGS", "").split()


def warn_if_known_bad() -> None:
    """Warn with the remedy; change nothing."""
    if is_known_bad():
        message = f"jaxlib {version('jaxlib')} computes wrong numbers on CPU without a word: {REMEDY}"
        warnings.warn(message, RuntimeWarning, stacklevel=3)


def switch_bad_fusion_off() -> None:
    """Set the XLA flag of `REMEDY` where it is needed; call before JAX computes anything.

    Accelerator builds of jax 0.10.2 require the bad jaxlib, and their hosts run CPU code too.
    """
    if is_known_bad():
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FUSION_OFF}".strip()


def self_check() -> list[Check]:
    """Compute the kernels that jaxlib 0.10.2 gets wrong, in float64 and float32, beside NumPy.

    **Raises:** `WrongNumbersError`, with the remedy.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    rng = np.random.default_rng(0)
    checks = []
    rows = 40_000  # the first wrong row is 16 385 in float64, 32 769 in float32
    for k, d in [(3, 3), (5, 5)]:
        for dtype, tolerance in [(np.float64, 1e-12), (np.float32, 1e-4)]:
            matrix, points = rng.normal(size=(k, d)).astype(dtype), rng.normal(size=(rows, d)).astype(dtype)
            with jax.enable_x64(dtype is np.float64):
                kernel = jax.jit(jax.vmap(lambda w, x: jnp.abs(w @ x).sum(), in_axes=(None, 0)))
                computed = np.asarray(kernel(matrix, points))
            exact = np.abs(points.astype(float) @ matrix.astype(float).T).sum(1)
            wrong = int(np.sum(~(np.abs(computed - exact) <= tolerance * exact)))
            checks.append(Check(f"vmap(sum(abs(W @ x))), {np.dtype(dtype)}, W {k} x {d}", rows, wrong))
    if bad := [check for check in checks if check.wrong]:
        shares = "; ".join(f"{c.kernel}: {c.wrong} of {c.rows} rows" for c in bad)
        raise WrongNumbersError(f"jaxlib {version('jaxlib')} computes wrong numbers here ({shares}): {REMEDY}")
    return checks


def describe() -> dict[str, str]:
    """Versions, devices and settings, by name."""
    import jax

    packages = ("theorysim", "jax", "jaxlib", "flax", "numpy", "xarray", "zarr", "matplotlib", "neural-tangents")
    return {
        "python": f"{sys.version.split()[0]} on {platform.system()} {platform.machine()}",
        **{package: _version(package) for package in packages},
        "devices": ", ".join(f"{d.platform}:{d.id} ({d.device_kind})" for d in jax.devices()),
        "x64": "on" if jax.numpy.zeros(()).dtype == "float64" else "off (the command line and the pipeline turn it on)",
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
