"""A user's runs: read them, find the columns by their usual names, and tell configurations apart."""

import csv
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from theorysim.checks import DataError, DataWarning
from theorysim.scaling import Law

if TYPE_CHECKING:
    import pandas as pd

USUAL = {
    "n": (
        *("n", "params", "parameters", "num_params", "n_params", "num_parameters", "model_size", "size"),
        *("params_no_embed", "non_embedding_params"),
    ),
    "d": ("d", "tokens", "training_tokens", "train_tokens", "num_tokens", "t", "examples", "num_examples", "samples"),
    "c": ("c", "flops", "compute", "training_flops", "train_flops", "total_flops"),
    "s": ("s", "steps", "step", "updates"),
    "b": ("b", "batch", "batch_size", "tokens_per_batch"),
    "unique": ("unique", "unique_tokens", "u"),
    "experts": ("experts", "num_experts"),
    "sparsity": ("sparsity",),
    "method": ("method",),
    "loss": ("loss", "val_loss", "valid_loss", "validation_loss", "eval_loss", "test_loss", "final_loss", "l"),
}
COUNTED = 1.1  # times 6 n d: more is another count
SCALES = ("c", "n", "d", "s")  # what a law of one scale `x` may mean, in this order


@dataclass(frozen=True)
class Runs:
    """Columns by the names that a law uses, what was taken for what, and the configuration they belong to.

    `compute` is that of a column of flops, for a law of n and d.
    """

    columns: dict[str, Any]
    notes: tuple[str, ...]
    group: str = ""
    compute: Any = None


def read(source: "Path | str | pd.DataFrame | Mapping[str, Any]") -> "pd.DataFrame":
    """A table from CSV, JSON lines or parquet, by the file's ending, or from columns in memory.

    **Raises:** `DataError` for a file that is missing, empty, of another kind, or damaged, and for two columns of one
    name.
    """
    import pandas as pd

    if isinstance(source, (pd.DataFrame, Mapping)):
        table = pd.DataFrame(source)
        _require_distinct(list(map(str, table.columns)), "the table")
        return table
    path = Path(source)
    readers = {
        ".csv": pd.read_csv,
        ".jsonl": lambda path: pd.read_json(path, lines=True),
        ".ndjson": lambda path: pd.read_json(path, lines=True),
        ".parquet": pd.read_parquet,
    }
    if path.suffix not in readers:
        raise DataError(f"{path}: give a file that ends in {', '.join(readers)}")
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    try:
        if path.suffix == ".csv":  # pandas calls a second `loss` `loss.1`
            with path.open(newline="", encoding="utf-8", errors="replace") as file:
                _require_distinct([name.strip() for name in next(csv.reader(file), [])], str(path))
        table = readers[path.suffix](path)
    except DataError:
        raise
    except (ValueError, OSError, csv.Error) as error:
        raise DataError(f"{path}: not a {path.suffix[1:]} table ({error})") from error
    if table.empty:
        raise DataError(f"{path}: it holds no runs")
    return table


def _require_distinct(names: Sequence[str], whose: str) -> None:
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise DataError(f"{whose}: it has several columns {', '.join(map(repr, twice))}: rename or drop all but one")


def concatenate(parts: "Sequence[pd.DataFrame]", files: Sequence[Path]) -> "pd.DataFrame":
    """The runs of several files in one table, where the column `file` says which they come from."""
    import pandas as pd

    if len(parts) == 1:
        return parts[0]
    return pd.concat([part.assign(file=file.stem) for part, file in zip(parts, files, strict=True)], ignore_index=True)


def find(
    table: "pd.DataFrame",
    law: Law,
    *,
    named: Mapping[str, str] | None = None,
    group: Sequence[str] = (),
    best: bool = False,
) -> list[Runs]:
    """The runs of each configuration.

    `named` says which column is an input or the loss; others go by usual names, letter case and blanks aside. Compute,
    size and data complete each other by c = 6 n d. `group` names the columns that tell configurations apart; without
    it, a table that holds several is refused, with their list. `best` keeps the lowest loss of each inputs.

    **Raises:** `DataError` for columns that are missing, taken twice, or hold words.
    """
    named = dict(named or {})
    unknown = [column for column in (*named.values(), *group) if column not in table.columns]
    if unknown:
        raise DataError(
            f"no column {', '.join(map(repr, unknown))}: the table has {', '.join(map(str, table.columns))}"
        )
    taken, notes = {}, []
    needed = ["loss", *law.inputs]
    for name in needed:
        column = named.get(name) or _usual(table, name, notes)
        if column is not None:
            taken[name] = column
            notes.append(f"{name} is the column {column!r}")
    columns = {name: numbers(table, column) for name, column in taken.items() if name != "method"}
    if "method" in taken:
        columns["method"] = _methods(table, taken["method"], notes)
    used = {*taken, *_complete(table, columns, needed, named, notes)}
    _require_each_its_own(taken)
    compute = _compute(table, columns, needed, named, notes)
    if compute is not None:
        used.add("c")
    _require_all_found(
        law, table, columns, needed, {name: column for name, column in named.items() if name not in used}
    )
    if group:
        labels, which = _groups(table, group)
    else:
        _require_one_configuration(table, columns, list(taken.values()))
        labels, which = [""], np.zeros(len(table), int)
    arrays = {name: columns[name].to_numpy() for name in needed}
    rows = [np.flatnonzero(which == i) for i in range(len(labels))]
    kept = [_best(arrays, mine) for mine in rows] if best else rows
    said = [
        (f"the best of each {', '.join(law.inputs)}: {len(some)} of {len(mine)} runs",) * best
        for some, mine in zip(kept, rows, strict=True)
    ]
    return [
        Runs(
            {name: column[mine] for name, column in arrays.items()},
            (*notes, *more),
            label,
            None if compute is None else compute[mine],
        )
        for mine, more, label in zip(kept, said, labels, strict=True)
    ]


def _require_all_found(
    law: Law, table: Any, columns: Mapping[str, Any], needed: list[str], idle: Mapping[str, str]
) -> None:
    if idle:
        raise DataError(f"columns={idle}: {law.name} takes {', '.join(needed)} and has no use for them; leave them out")
    missing = [name for name in needed if name not in columns]
    if missing:
        flags = " ".join(f"--{name} COLUMN" for name in missing)
        raise DataError(
            f"{law.name} needs {', '.join(missing)}, and no column of {', '.join(map(str, table.columns))} has a usual "
            f"name for it: say {flags}"
        )


def _best(arrays: Mapping[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Of these rows, in their order, the one of the lowest loss for each inputs."""
    order = rows[np.argsort(arrays["loss"][rows], kind="stable")]
    inputs = np.stack([column[order] for name, column in arrays.items() if name != "loss"], 1)
    return np.sort(order[np.unique(inputs, axis=0, return_index=True)[1]])


def _require_each_its_own(taken: Mapping[str, str]) -> None:
    for name, column in taken.items():
        others = [other for other in taken if other != name and taken[other] == column]
        if others:
            raise DataError(f"column {column!r} is taken for {name} and {' and '.join(others)}: give each its own")


def _compute(
    table: Any, columns: Mapping[str, Any], needed: list[str], named: Mapping[str, str], notes: list[str]
) -> Any:
    """The flops that were given, beside n and d; warned of where they are not 6 n d."""
    column = named.get("c") or _usual(table, "c", [])
    if column is None or not {"n", "d"} <= set(columns) or "c" in needed:
        return None
    flops = numbers(table, column)
    ratio = (flops / (6 * columns["n"] * columns["d"])).dropna()
    notes.append(f"budgets of parabolas are those of the column {column!r}")
    low, high = ratio.min(), ratio.max()
    if len(ratio) and not (low > 1 / COUNTED and high < COUNTED):
        warnings.warn(
            f"{column} is {low:.2g} to {high:.2g} times 6 n d, by which the frontier counts: its n*, d* and exponent "
            "are those of 6 n d, and not of these flops; say n and d in the flops' own count",
            DataWarning,
            stacklevel=3,
        )
    return None if flops.isna().any() or (flops <= 0).any() else flops.to_numpy()


def _groups(table: Any, group: Sequence[str]) -> tuple[list[str], Any]:
    """The configurations in order of appearance, and which of them each row belongs to."""
    group = list(dict.fromkeys(group))
    lacking = table[group].isna().any(axis=1).to_numpy().nonzero()[0].tolist()
    if lacking:
        rows = f"rows {', '.join(map(str, lacking[:5]))}{', ...' * (len(lacking) > 5)}"
        raise DataError(f"{rows} ({len(lacking)} in all) lack a group in {', '.join(group)}: fill them, or drop them")
    which = table.groupby(group, sort=False).ngroup().to_numpy()
    firsts = [int((which == i).argmax()) for i in range(which.max() + 1)]
    return [", ".join(map(str, table[group].iloc[first])) for first in firsts], which


def _usual(table: Any, name: str, notes: list[str]) -> str | None:
    meanings = SCALES if name == "x" else (name,)
    found = [column for meaning in meanings for column in matches(table, USUAL.get(meaning, (meaning,)))]
    if len(found) > 1:
        notes.append(f"{name} could also be {', '.join(map(repr, found[1:]))}")
    return found[0] if found else None


def matches(table: Any, usual: Sequence[str]) -> list[str]:
    """The columns with one of these names, letter case and blanks aside, in this order."""
    plain = [(str(column).strip().lower().replace(" ", "_").replace("-", "_"), column) for column in table.columns]
    return [column for name in usual for key, column in plain if key == name]


def numbers(table: Any, column: str, whose: str = "") -> Any:
    """A column as floats, refused where it holds words; the message begins with `whose`."""
    import pandas as pd

    found: Any = pd.to_numeric(table[column], errors="coerce")
    found = found.astype(float)
    bad = found.isna() & table[column].notna()
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise DataError(f"{whose}column {column!r} holds {table[column].iloc[row]!r} in row {row}: give numbers")
    return found


def _methods(table: Any, column: str, notes: list[str]) -> Any:
    values = sorted(table[column].unique())
    if len(values) != 2:
        raise DataError(f"column {column!r} holds {len(values)} methods: a crossover is one of two")
    notes.append(f"method 1 is {values[0]!r}, method 2 is {values[1]!r}")
    return table[column].map({value: float(i + 1) for i, value in enumerate(values)})


def _complete(
    table: Any, columns: dict[str, Any], needed: list[str], named: Mapping[str, str], notes: list[str]
) -> set[str]:
    """Compute, size and data from the other two; which were used."""
    used: set[str] = set()
    recipes = {
        "c": (("n", "d"), lambda n, d: 6 * n * d, "6 n d"),
        "d": (("c", "n"), lambda c, n: c / (6 * n), "c / (6 n)"),
        "n": (("c", "d"), lambda c, d: c / (6 * d), "c / (6 d)"),
    }
    for name, (sources, recipe, formula) in recipes.items():
        if name not in needed or name in columns:
            continue
        found = {source: named.get(source) or _usual(table, source, []) for source in sources}
        if all(found.values()):
            used.update(sources)
            columns[name] = recipe(*(numbers(table, str(column)) for column in found.values()))
            named_so = ", ".join(f"{source} the column {column!r}" for source, column in found.items())
            notes.append(f"{name} is {formula}, {named_so}")
    return used


def _require_one_configuration(table: Any, columns: Mapping[str, Any], taken: list[str]) -> None:
    """Refuse columns of words that differ between runs of several inputs; a run's own name does not."""
    import pandas as pd

    inputs = pd.DataFrame({name: column for name, column in columns.items() if name != "loss"})
    telling = {}
    for column in table.columns:
        if column in taken or pd.api.types.is_numeric_dtype(table[column]):
            continue
        runs_of_each: Any = inputs.groupby(table[column]).apply(lambda rows: len(rows.drop_duplicates()))
        if len(runs_of_each) > 1 and runs_of_each.max() > 1:
            telling[column] = list(runs_of_each.index.astype(str))
    if telling:
        lists = "; ".join(f"{column}: {', '.join(values)}" for column, values in telling.items())
        flag = " ".join(f"--group {column}" for column in telling)
        raise DataError(f"the table holds several configurations ({lists}): say {flag}, and each is fitted by itself")
