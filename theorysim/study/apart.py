"""Run studies in processes of their own, several at once, and hand out their outcomes in order."""

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from theorysim.study.pipeline import Outcome


def outcomes(paths: Sequence[Path], preset: str, out: Path, jobs: int) -> "Iterator[tuple[Outcome, str]]":
    """What became of each study, and what it printed, in the order of `paths`; `jobs` of them run at once.

    A study that changes its process, or ends it, changes no other. With one job it prints to the terminal itself.
    """
    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(_study, path, preset, out, jobs > 1) for path in paths]
        try:
            for future in waiting:
                yield future.result()
        finally:  # Ctrl-C reaches the processes that run; no other starts
            pool.shutdown(wait=False, cancel_futures=True)


def call(fn: Callable, *arguments: Any, log: Path | None = None) -> Any:
    """`fn(*arguments)` in a new process; raises what it raises, and `ChildProcessError` where the process dies."""
    context = multiprocessing.get_context("spawn")  # a fork of a process that runs JAX can hang
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, log, fn, *arguments))
    process.start()
    sender.close()
    try:
        raised, result = receiver.recv()
    except EOFError:
        process.join()
        raise ChildProcessError(f"its process ended with exit code {process.exitcode}") from None
    process.join()
    if raised:
        raise result
    return result


def machine() -> str:
    """The platform that JAX computes on; `WrongNumbersError` where this machine computes wrong numbers."""
    import jax

    from theorysim import doctor

    doctor.self_check()
    return jax.default_backend()


def _study(path: Path, preset: str, out: Path, quiet: bool) -> "tuple[Outcome, str]":
    from theorysim.study.pipeline import Outcome, fail, run

    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "log" if quiet else None
        try:
            outcome = call(run, path, preset, out, log=log)
        except ChildProcessError as death:
            fail(path, preset, out, str(death))
            outcome = Outcome(path.stem, [], simulated=False, seconds=0.0, error=str(death))
        return outcome, log.read_text(errors="replace") if log else ""


def _answer(sender: Connection, log: Path | None, fn: Callable, *arguments: Any) -> None:
    """In the new process: send whether `fn` raised, and its result or what it raised."""
    if log is not None:
        file = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, 1)
        os.dup2(file, 2)
    try:
        answer = False, fn(*arguments)
    except (Exception, KeyboardInterrupt) as error:
        answer = True, error
    sender.send(answer)
