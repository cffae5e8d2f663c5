"""Studies as notebooks: the same file, cell by cell."""

import os
from pathlib import Path

from theorysim.study.load import StudyError

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def set_up() -> None:
    """What the pipeline sets around a study: float64, and the look of figures. For a study that runs as a notebook."""
    import jax
    import matplotlib.pyplot as plt

    from theorysim.figure import style

    jax.config.update("jax_enable_x64", True)
    plt.rcParams.update(style())


def execute(path: Path, out: Path) -> Path:
    """Convert a study from the percent format, run every cell, and write `out`/STUDY.ipynb.

    **Raises:** `StudyError` where no cell shows a picture.
    """
    try:
        import jupytext
        import nbformat
        from nbclient import NotebookClient
    except ImportError as error:
        raise ImportError(
            "notebooks need jupytext, nbclient and ipykernel: pip install 'theorysim[notebooks]'"
        ) from error
    notebook = jupytext.read(path, fmt="py:percent")
    notebook.metadata["kernelspec"] = KERNEL
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": path.parent}})
    # The command line draws into files; a notebook draws into its cells.
    client.execute(env={name: value for name, value in os.environ.items() if name != "MPLBACKEND"})
    out.mkdir(parents=True, exist_ok=True)
    written = out / f"{path.stem}.ipynb"
    nbformat.write(notebook, written)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    if not any("image/png" in output.get("data", {}) for output in outputs):
        raise StudyError(f"{written} shows no picture: let its last cell call draw(data)")
    return written
