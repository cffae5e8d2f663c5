"""The shapes that signatures name, and the dtype that numbers have."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Scalar = Float[Array, ""]
ScalarLike = Float[Array, ""] | Int[Array, ""] | float | int
Numbers = Float[Array, "*shape"] | Float[np.ndarray, "*shape"] | float | int


def as_floats(*values: Any) -> tuple[Array, ...]:
    """Arrays of one floating dtype: that of the inputs, or the default one where all are whole numbers, or lists."""
    values = tuple(jnp.asarray(value) if isinstance(value, list | tuple) else value for value in values)
    dtype = jnp.result_type(*values)
    dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)
    return tuple(jnp.asarray(value, dtype) for value in values)
