"""What every family refuses, eagerly: values under a JAX trace are not known yet, and pass."""

from collections.abc import Iterable
from numbers import Integral
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


class DataError(ValueError):
    """A user's data cannot be used; the message names what is wrong, and the remedy."""


class DataWarning(UserWarning):
    """Work on a user's data goes on, and its result may not mean what it seems to."""


def is_traced(value: Any) -> bool:
    """Whether the value is known only when the compiled program runs."""
    return isinstance(value, Tracer)


def require_finite(**arrays: Any) -> None:
    """Refuse NaN and infinity; None passes, for arguments that are left out."""
    for name, array in arrays.items():
        if array is not None and not is_traced(array) and not np.isfinite(np.asarray(array)).all():
            bad = np.argwhere(~np.isfinite(np.asarray(array)))
            raise ValueError(
                f"{name} holds {len(bad)} values that are not finite, the first at {tuple(bad[0].tolist())}: "
                "drop or repair them"
            )


def require_count(*, least: int = 1, **counts: Any) -> None:
    """Refuse what is no whole number, or less than `least`."""
    for name, count in counts.items():
        if not is_traced(count) and not (isinstance(count, Integral) and int(count) >= least):
            raise ValueError(f"{name}={count!r}: give a whole number >= {least}")


def require_whole(**values: Any) -> None:
    """Refuse what is no whole number >= 0, of any type, or has more digits than JAX's whole numbers."""
    most = jnp.iinfo(jnp.result_type(int)).max
    for name, value in values.items():
        if not is_traced(value):
            given = np.asarray(value)
            if not ((given >= 0) & (given == np.floor(given)) & (given <= most)).all():
                raise ValueError(f"{name}={value}: give a whole number from 0 to {most:.1e}")


def require_shape(shape: tuple[int, ...], **arrays: Any) -> None:
    """Refuse another shape, traced or not."""
    for name, array in arrays.items():
        if jnp.shape(array) != shape:
            raise ValueError(f"{name} has shape {jnp.shape(array)}: give {shape}")


def require_targets(count: int, *, targets: Any) -> None:
    """Refuse targets that are not one row per training input: (n,), or (n, outputs)."""
    shape = jnp.shape(targets)
    if len(shape) not in (1, 2) or shape[0] != count:
        raise ValueError(f"targets has shape {shape}: give ({count},), or ({count}, outputs), one row per input")


def require_in(low: float | int, high: float | int, **values: Any) -> None:
    """Refuse what lies outside of [low, high]."""
    for name, value in values.items():
        if not is_traced(value) and not ((np.asarray(value) >= low) & (np.asarray(value) <= high)).all():
            raise ValueError(f"{name}={value}: give a value in [{low:g}, {high:g}]")


def require_one_of(choices: Iterable[str], **values: Any) -> None:
    """Refuse a word that is none of these."""
    for name, value in values.items():
        if value not in choices:
            raise ValueError(f"{name}={value!r}: give one of {', '.join(choices)}")


def require_nonnegative(**values: Any) -> None:
    """Refuse a negative or undefined variance, scale or count."""
    for name, value in values.items():
        if not is_traced(value) and not (np.asarray(value) >= 0).all():
            raise ValueError(f"{name}={value}: give a value >= 0")


def require_positive(**values: Any) -> None:
    """Refuse zero, too."""
    for name, value in values.items():
        if not is_traced(value) and not (np.asarray(value) > 0).all():
            raise ValueError(f"{name}={value}: give a value > 0")


def require_correlation(**values: Any) -> None:
    """Refuse what lies outside of [-1, 1] by more than rounding."""
    for name, value in values.items():
        if not is_traced(value) and not (np.abs(np.asarray(value)) <= 1 + 1e-6).all():
            raise ValueError(f"{name}={value}: give a correlation in [-1, 1]")


def require_float64(what: str, **arrays: Any) -> None:
    """Refuse single precision where its digits do not suffice."""
    for name, array in arrays.items():
        dtype = jnp.result_type(array)
        if dtype != np.float64:
            raise ValueError(
                f'{name} is {dtype}, and {what} needs float64: jax.config.update("jax_enable_x64", True), '
                "then pass float64 arrays"
            )
