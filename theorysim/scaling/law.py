"""Scaling laws as pure functions, and what a fit must know of their parameters.

A law maps inputs (a model's size n, its data d, ...) to a loss. Its parameters carry units: in

    loss = E + A / n^alpha + B / d^beta

E is a loss, and A a loss times a size to the alpha. A fit measures inputs and losses in units of the runs themselves
(their geometric means), where parameters are of order one, starts need no tuning and the normal equations are well
conditioned; what it returns is in the units of the runs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from theorysim.checks import require_positive
from theorysim.root import log_root
from theorysim.typing import Numbers, Scalar, ScalarLike

Power = float | int | Callable[[Mapping[str, Any]], Any]


def power(base: Numbers, exponent: ScalarLike) -> Float[Array, "*shape"]:
    """base^exponent for base > 0: by exp and log, which vectorise."""
    return jnp.exp(exponent * jnp.log(base))


@dataclass(frozen=True)
class Parameter:
    """Where starts lie, in units of the data, and which powers of "loss" and of the inputs' units it carries.

    A `positive` parameter is fitted, drawn and reported as a logarithm; a power may depend on parameters without unit.
    """

    low: float | int
    high: float | int
    unit: Mapping[str, Power] = field(default_factory=dict)
    positive: bool = True

    def __post_init__(self):
        if not self.low < self.high or (self.positive and self.low <= 0):
            kind = "positive " * self.positive
            raise ValueError(f"Parameter({self.low}, {self.high}): give {kind}low < high, the range of its starts")


@dataclass(frozen=True, eq=False)
class Law:
    """loss = fn(**inputs, **parameters); `inputs` names the unit of each, which several may share.

    fn takes arrays of one shape (runs,) for each input and a number for each parameter, and returns (runs,). A law that
    `rises` may do so with its sizes: of successes, or with breaks. From others, data that rise with all are refused.
    """

    name: str
    fn: Callable[..., Array]
    inputs: Mapping[str, str]
    parameters: Mapping[str, Parameter]
    source: str = ""
    rises: bool = False

    def __call__(self, **values: Any) -> Array:
        """The loss at inputs and parameters, all by name."""
        missing = [name for name in (*self.inputs, *self.parameters) if name not in values]
        unknown = [name for name in values if name not in self.inputs and name not in self.parameters]
        if missing or unknown:
            raise ValueError(
                f"{self.name}: missing {missing}, unknown {unknown}: "
                f"it takes the inputs {list(self.inputs)} and the parameters {list(self.parameters)}"
            )
        return self.fn(**values)

    @property
    def units(self) -> tuple[str, ...]:
        """The units that parameters carry: those in which the data can be measured."""
        carried = {name: None for parameter in self.parameters.values() for name in parameter.unit}
        return tuple(carried)

    def values(self, point: Float[Array, " parameters"], log_scale: Mapping[str, Array]) -> dict[str, Array]:
        """Parameters at a point of the fit's coordinates, in the units whose logarithms are given."""
        bare = {
            name: jnp.exp(coordinate) if parameter.positive else coordinate
            for (name, parameter), coordinate in zip(self.parameters.items(), point, strict=True)
        }
        return {name: value * jnp.exp(self._shift(name, bare, log_scale)) for name, value in bare.items()}

    def point(self, values: Mapping[str, Any], log_scale: Mapping[str, Array]) -> Float[Array, " parameters"]:
        """The inverse of `values`."""
        bare = {name: jnp.asarray(values[name], float) for name in self.parameters}
        shifted = {name: value * jnp.exp(-self._shift(name, bare, log_scale)) for name, value in bare.items()}
        return jnp.stack(
            [jnp.log(shifted[name]) if parameter.positive else shifted[name] for name, parameter in self._items()]
        )

    def box(self) -> Float[np.ndarray, "2 parameters"]:
        """The corners of the starts, in the fit's coordinates."""
        corners = np.array([(parameter.low, parameter.high) for parameter in self.parameters.values()], float)
        positive = np.array([parameter.positive for parameter in self.parameters.values()])
        return np.where(positive, np.log(np.where(positive, corners.T, 1.0)), corners.T)

    def _items(self) -> Any:
        return self.parameters.items()

    def _shift(self, name: str, values: Mapping[str, Any], log_scale: Mapping[str, Array]) -> Array:
        powers = self.parameters[name].unit.items()
        return sum(
            ((power(values) if callable(power) else power) * log_scale[unit] for unit, power in powers), jnp.zeros(())
        )


def invert(
    law: Law, name: str, loss: ScalarLike, *, low: ScalarLike = 1.0, high: ScalarLike = 1e30, **given: Any
) -> Scalar:
    """The input `name` at which the law takes the value `loss`, all else being given; NaN where it does not.

    The law must be monotone in that input between `low` and `high`. Differentiable twice in `loss` and in all given.

    ```python
    from theorysim import scaling

    parameters = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}
    tokens = scaling.invert(scaling.LAWS["chinchilla"], "d", 2.5, n=1e9, **parameters)
    assert abs(scaling.LAWS["chinchilla"](n=1e9, d=tokens, **parameters) - 2.5) < 1e-12
    ```

    **Raises:** `ValueError` for a name that is no input of the law, and for numbers <= 0.
    """
    if name not in law.inputs:
        raise ValueError(f"name={name!r}: {law.name} has the inputs {list(law.inputs)}")
    require_positive(loss=loss, low=low, high=high)

    def excess(log_input: Array) -> Array:
        return jnp.squeeze(law(**{name: jnp.exp(log_input)}, **given)) - loss

    return log_root(excess, low, high)
