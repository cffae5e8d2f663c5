"""The shapes that signatures name, once."""

from jaxtyping import Array, Float, Int

Scalar = Float[Array, ""]
ScalarLike = Float[Array, ""] | Int[Array, ""] | float | int
