"""Studies as notebooks: the same file, cell by cell."""

from pathlib import Path


def execute(path: Path, out: Path) -> Path:
    """Convert a study from the percent format, run every cell, and write `out`/STUDY.ipynb."""
    try:
        import jupytext
        import nbformat
        from nbclient import NotebookClient
    except ImportError as error:
        raise ImportError(
            "notebooks need jupytext, nbclient and ipykernel: pip install 'theorysim[notebooks]'"
        ) from error
    notebook = jupytext.read(path, fmt="py:percent")
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": path.parent}})
    client.execute()
    out.mkdir(parents=True, exist_ok=True)
    written = out / f"{path.stem}.ipynb"
    nbformat.write(notebook, written)
    return written
