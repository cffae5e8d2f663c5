"""Handwritten digits of 8 x 8 pixels, the data that studies share."""

from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Digits(NamedTuple):
    """Centred images, and which digit each shows."""

    images: Float[np.ndarray, "n 64"]
    labels: Int[np.ndarray, " n"]

    @property
    def parity(self) -> Float[np.ndarray, " n"]:
        """+1 for even digits, -1 for odd ones."""
        return 1.0 - 2 * (self.labels % 2)


def digits(count: int | None = None, *, scale: Literal["image", "set"], seed: int | None = None) -> Digits:
    """The first `count` of scikit-learn's 1797 digits, after a shuffle where a `seed` is given.

    The mean over all images is subtracted. Then the mean square of the pixels is 1: of each "image" by itself, so that
    all lie on one sphere, or of the whole "set".

    **Raises:** `ImportError` where scikit-learn is missing, with the way to install it.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the digits come with scikit-learn: pip install 'theorysim[studies]'") from error
    found: Any = load_digits()
    images, labels = found.data, found.target
    images = images - images.mean(0)
    squares = (images**2).mean(1, keepdims=True)
    images = images / np.sqrt(squares if scale == "image" else squares.mean())
    order = np.arange(len(images)) if seed is None else np.random.default_rng(seed).permutation(len(images))
    return Digits(images[order[:count]], labels[order[:count]])
