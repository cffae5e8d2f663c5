"""Training curves: schedules rebuilt from what was written, laws found again, another schedule predicted."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from theorysim import report
from theorysim.checks import DataError
from theorysim.scaling import schedule

TRUTH = {"L0": 2.6, "A": 0.5, "alpha": 0.5, "C": 0.9, "memory": 40.0}
RATES = {
    "constant": schedule.constant(0.01, 400),
    "cosine": schedule.cosine(0.01, 400, final=1e-3),
    "wsd": schedule.stable_decay(0.01, 400, decay=80),
}
RATES = {name: rates.at[:20].set(np.linspace(0, rates.max(), 20)) for name, rates in RATES.items()}
SHARED = Path(__file__).parents[3] / "shared" / "data" / "multipowerlaw"


def curve(name, seed=0, every=10):
    """Steps from 0, as most programs count: the loss at step s has seen the rates up to s."""
    step = np.arange(19, 400, every)  # from the peak on
    loss = np.asarray(schedule.annealing(RATES[name], step + 1, **TRUTH))
    noise = np.exp(2e-4 * np.random.default_rng(seed).standard_normal(len(step)))
    return pd.DataFrame({"Step": step, "learning rate": np.asarray(RATES[name])[step], "loss": loss * noise})


def from_zero():
    return pd.DataFrame({"Step": [0, 1, 2, 3], "lr": [0.0, 0.0, 0.1, 0.1], "loss": 1.0})


def changed(column, row, value):
    table = curve("cosine", every=5)  # more rows than are fitted
    table.loc[table.index[row], column] = value
    return table


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curves")
    for i, name in enumerate(("constant", "cosine")):
        curve(name, seed=i).to_csv(folder / f"{name}.csv", index=False)
    return report.fit_curves([folder / "constant.csv", folder / "cosine.csv"], warmup=20, samples=64)


def test_a_planted_law_is_found_and_predicts_another_schedule(fitted):
    for name, value in TRUTH.items():
        assert abs(fitted.parameters[name] - value) < 4 * fitted.table().loc[name, "error"], name
    predicted = fitted.predict(RATES["wsd"])
    exact = float(schedule.annealing(RATES["wsd"], np.array([400]), **TRUTH)[0])
    assert predicted.run[0, 0] < exact < predicted.run[1, 0]
    assert "lr is the column 'learning rate'" in fitted.notes


def test_a_report_survives_its_file(fitted, tmp_path):
    folder = fitted.write(tmp_path / "report")
    assert sorted(path.name for path in folder.iterdir()) == ["fit.json", "fit.pdf", "fit.png"]
    again = report.load(folder)
    assert isinstance(again, report.CurveReport)
    np.testing.assert_array_equal(again.predict(RATES["wsd"]).law, fitted.predict(RATES["wsd"]).law)
    assert json.loads((folder / "fit.json").read_text())["law"] == "annealing"
    assert "of 2 curves" in again._repr_html_()


def test_rates_between_those_written():
    table = pd.DataFrame({"step": [10, 20, 40], "lr": [0.1, 0.1, 0.05], "loss": 1.0})
    rates = report.read_rates(table, warmup=5)
    assert len(rates) == 41
    np.testing.assert_allclose(rates[[0, 1, 4, 5, 10, 20, 30, 40]], [0, 0.025, 0.1, 0.1, 0.1, 0.1, 0.075, 0.05])


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (curve("cosine").iloc[::-1], {}, r"curve 0: steps must increase: sort the rows"),
        (changed("Step", 3, -1), {}, r"curve 0: step is -1 in row 3: give whole numbers >= 0, or drop the row"),
        (changed("loss", 30, np.nan), {}, r"curve 0: loss is nan in row 30: give positive losses, or drop the row"),
        (changed("loss", 1, -2.0), {}, r"curve 0: loss is -2 in row 1: give positive losses"),
        (
            changed("learning rate", 37, np.nan),
            {},
            r"curve 0: learning rate is nan in row 37: give learning rates >= 0",
        ),
        (changed("learning rate", slice(None), 0), {}, r"curve 0: learning rate is 0 in all rows"),
        (from_zero(), {}, r"is 0 up to row 1, .*: drop the rows up to it"),
        (curve("cosine").assign(loss="high"), {}, r"curve 0: column 'loss' holds 'high' in row 0: give numbers"),
        (curve("cosine"), {"level": 95}, r"level=95: give a share in \(0, 1\)"),
        (curve("cosine"), {"samples": 0}, r"samples=0: give at least 2"),
        (curve("cosine"), {"warmup": 1000}, r"warmup=1000: give a number of steps up to 400"),
        (curve("cosine").drop(columns="loss"), {}, r"curve 0 lacks loss: a curve has the columns step, lr and loss"),
        (curve("cosine"), {"law": "m2"}, r"law='m2': curves of step, lr and loss go to annealing or multi_power"),
    ],
)
def test_bad_curves_are_refused(table, options, message):
    with pytest.raises(DataError, match=message):
        report.fit_curves([table], **options)


def test_a_table_of_runs_with_steps_and_rates_is_no_curve():
    assert report.are_curves(curve("cosine"))
    assert not report.are_curves(curve("cosine").assign(n=1e8, tokens=1e9))


def test_a_schedule_without_rates_is_refused():
    with pytest.raises(DataError, match=r"mine lacks step, lr: a schedule has the columns step and lr"):
        report.read_rates(pd.DataFrame({"loss": [1.0]}), 0, "mine")


def test_a_schedule_far_beyond_the_curves_is_told(fitted):
    assert fitted.beyond(RATES["wsd"]) == []
    assert fitted.beyond(np.ones(8000)) == [
        "the number of steps = 8000 is 20 times the largest curve's",
        "the largest lr = 1 is 1e+02 times the largest curve's",
    ]


def test_files_of_runs_are_one_table_with_their_names():
    parts = [
        pd.DataFrame({"n": [1e8], "d": [1e9], "loss": [3.0]}),
        pd.DataFrame({"n": [1e9], "d": [1e9], "loss": [2.0]}),
    ]
    assert list(report.concatenate(parts, [Path("a.csv"), Path("b.csv")])["file"]) == ["a", "b"]
    assert report.concatenate(parts[:1], [Path("a.csv")]) is parts[0]


@pytest.mark.skipif(not SHARED.exists(), reason="the public runs are not here")
@pytest.mark.slow
def test_public_curves_predict_a_schedule_that_was_not_fitted():
    folder = SHARED / "csv_25"
    files = [folder / f"{name}.csv" for name in ("constant_24000", "cosine_24000", "wsdcon_9")]
    fitted = report.fit_curves(files, warmup=2160, samples=64)
    other = report.read(folder / "wsdld_20000_24000.csv")
    steps = other["step"].to_numpy() + 1
    predicted = fitted.predict(report.read_rates(other, warmup=2160), steps)
    assert (
        np.abs(np.log(predicted.loss / other["loss"])).mean() < 0.003
    )  # the published fits' own errors: .0014 to .008
