"""neural-tangents' `stax` and `predict`, on a current JAX and without TensorFlow: convolution, pooling, attention.

```python
from theorysim.infinite.neural_tangents import kernels, predict, stax
_, _, kernel_fn = stax.serial(stax.Conv(64, (3, 3)), stax.Relu(), stax.Flatten(), stax.Dense(1))
kernels(kernel_fn, train, test)  # the same type as fully_connected gives, for the same predictors
```

The package's own `__init__` imports TensorFlow and names that JAX dropped; it does not run here. Nothing of JAX is
patched. Its empirical kernels and its Monte Carlo cannot be had this way. (Novak et al., arXiv:1912.02803.)
"""

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from theorysim.checks import require_finite
from theorysim.infinite.activation import angle, deficit_of
from theorysim.infinite.kernel import Kernels

MODULES = ("stax", "predict")
_INSTALL = "pip install --no-deps neural-tangents frozendict"


def __getattr__(name: str) -> types.ModuleType:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: it has {' and '.join(MODULES)}")
    return _load(name)


def _load(name: str) -> types.ModuleType:
    if "neural_tangents" not in sys.modules:
        spec = importlib.util.find_spec("neural_tangents")
        if spec is None or spec.submodule_search_locations is None:
            raise ImportError(f"neural-tangents is not installed: {_INSTALL} (make setup does)")
        package = types.ModuleType("neural_tangents")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["neural_tangents"] = package
    try:
        return importlib.import_module(f"neural_tangents.{name}")
    except ImportError as error:
        raise ImportError(f"neural-tangents' {name} does not import ({error}): {_INSTALL} (make setup does)") from error


def kernels(
    kernel_fn: Callable[..., Any],
    x1: Float[Array, "n1 ..."],
    x2: Float[Array, "n2 ..."] | None = None,
    *,
    rows: int | None = None,
) -> Kernels:
    """The kernels of a `stax` network that ends in one row of outputs an input.

    **Arguments:**

    - `kernel_fn`: the third of what `stax.serial` returns.
    - `x1`, `x2`: inputs, their first axis counting them. `x2=None` is x1 again.
    - `rows`: compute so many rows at a time, which bounds the memory of convolutions; all by default.

    The angle is no better than the covariance it comes from: near-duplicates lose it, unlike in `fully_connected`.

    **Raises:** `ValueError` for inputs that are not finite, and a network whose kernel is not a matrix.
    """
    require_finite(x1=x1, x2=x2)
    columns = x1 if x2 is None else x2

    def block(x):
        pair = kernel_fn(x, columns, ("nngp", "ntk"))
        return pair.nngp, pair.ntk

    def variance(x):
        return kernel_fn(x[None], None, "nngp").ravel()

    if rows is None:
        nngp, ntk = block(x1)
    else:
        nngp, ntk = (
            jnp.concatenate(parts)
            for parts in zip(*(block(x1[i : i + rows]) for i in range(0, len(x1), rows)), strict=True)
        )
    if nngp.ndim != 2:
        raise ValueError(f"the network's kernel has shape {nngp.shape}: end it in Flatten or GlobalAvgPool and Dense")
    q1, q2 = (jax.lax.map(variance, x)[:, 0] for x in (x1, columns))
    deficit = deficit_of(q1[:, None], q2[None, :], nngp)
    return Kernels(nngp, ntk, angle(deficit if x2 is not None else deficit * (1 - jnp.eye(len(x1)))))
