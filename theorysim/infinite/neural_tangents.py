"""neural-tangents' `stax` and `predict`, on a current JAX and without TensorFlow: convolution, pooling, attention.

```python
from theorysim.infinite.neural_tangents import predict, stax
_, _, kernel = stax.serial(stax.Conv(64, (3, 3)), stax.Relu(), stax.Flatten(), stax.Dense(1))
kernel(images, None, "ntk")
```

The package's own `__init__` imports TensorFlow and names that JAX dropped; it does not run here. Nothing of JAX is
patched. Its empirical kernels and its Monte Carlo cannot be had this way. (Novak et al., arXiv:1912.02803.)
"""

import importlib
import importlib.util
import sys
import types

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
