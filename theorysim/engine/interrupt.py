"""Ctrl-C that is not lost."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax


@contextmanager
def heeded() -> Iterator[Callable[[], None]]:
    """Ctrl-C raises `KeyboardInterrupt` from this block, wherever it lands; the yielded check does so between tiles.

    Python raises it in the line that runs. In a callback that JAX calls, JAX makes an error of its own of it;
    in a finaliser or a callback of the garbage collector, Python drops it.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield lambda: None  # this thread gets no signals, or nobody wants them
        return
    pressed = []

    def note(number: int, frame: Any) -> None:
        pressed.append(number)
        before(number, frame)

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        yield check
        check()
    except jax.errors.JaxRuntimeError as error:
        if pressed:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)
