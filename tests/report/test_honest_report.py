"""What a report on runs doubts, and how much wider it predicts beyond them."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import theorysim.scaling as sc
from theorysim import report
from theorysim.checks import DataError, DataWarning
from theorysim.report import table
from theorysim.report.doubts import doubts, repeated
from theorysim.report.extrapolation import HeldOut, held_out

TRUTH = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
SHARED = Path(__file__).parents[3] / "shared" / "data"
public = pytest.mark.skipif(not SHARED.exists(), reason="the public runs are not here")


def runs(count=60, seed=0):
    rng = np.random.default_rng(seed)
    n, d = 10 ** rng.uniform(7, 9.5, count), 10 ** rng.uniform(9, 11.5, count)
    loss = np.asarray(sc.LAWS["chinchilla"](n=n, d=d, **TRUTH)) * np.exp(0.003 * rng.standard_normal(count))
    return pd.DataFrame({"n": n, "d": d, "loss": loss})


def fit_with_doubts(frame, **options):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", DataWarning)
        (one,) = report.fit(frame, **{"samples": 40, **options})
    return one, [str(doubt.message) for doubt in found]


@pytest.fixture(scope="module")
def fitted():
    return fit_with_doubts(runs())


def test_good_runs_are_not_doubted(fitted):
    assert fitted[1] == []


def test_a_prediction_beyond_the_runs_is_as_unsure_as_extrapolation_was(fitted, tmp_path):
    one = fitted[0]
    inputs = {"n": one.runs["n"], "d": one.runs["d"]}
    along = np.log10(inputs["n"] * inputs["d"])
    judged = sc.hold_out("chinchilla", one.runs, along, beyond=np.quantile(along, 0.7))
    np.testing.assert_allclose(one.held_out.rms, judged.rms, rtol=1e-6)
    assert one.held_out.runs == 18
    among = one.predict(n=1e9, d=1e10)
    np.testing.assert_array_equal(among.run, among.in_sample)
    # Two decades beyond the largest product.
    beyond = one.predict(n=10 ** (along.max() / 2 + 1), d=10 ** (along.max() / 2 + 1))
    expected = one.held_out.rms * 2 / one.held_out.decades
    np.testing.assert_allclose(np.log(beyond.run / beyond.in_sample)[:, 0], [-expected, expected], rtol=1e-9)
    assert any("the law misses the largest 18" in sentence for sentence in one.sentences())
    again = report.load(one.write(tmp_path / "report"))
    assert isinstance(again, report.RunReport)
    assert again.held_out == one.held_out


def test_smaller_runs_that_predict_nothing_are_told():
    x = np.geomspace(1e6, 1e9, 3)
    found = held_out(sc.LAWS["m1"], {"x": x, "loss": x**-0.1})
    assert np.isnan(found.rms)
    assert "2 runs for 2 free parameters" in found.sentence()
    np.testing.assert_array_equal(found.widening(np.array([-1.0, 1.0])), 0)
    np.testing.assert_allclose(HeldOut(3, 18, 0.1, 0, 0.5).widening(np.array([-1.0, 1.0])), [0, 0.2])


def test_flops_of_another_count_are_told():
    frame = runs()
    frame["flops"] = 6 * frame["n"] * frame["d"]
    (found,) = table.find(frame, sc.LAWS["chinchilla"])
    np.testing.assert_allclose(found.compute, frame["flops"])
    frame["flops"] *= np.geomspace(0.7, 1.4, 60)
    with pytest.warns(DataWarning, match=r"flops is 0.7 to 1.4 times 6 n d, by which the frontier counts"):
        (found,) = table.find(frame, sc.LAWS["chinchilla"])
    np.testing.assert_allclose(found.compute, frame["flops"])
    # A column that is named is used, too.
    renamed = frame.rename(columns={"flops": "spent"})
    with pytest.warns(DataWarning, match="spent is 0.7 to 1.4 times 6 n d"):
        (found,) = table.find(renamed, sc.LAWS["chinchilla"], named={"c": "spent"})


def test_columns_of_one_name_are_refused(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("n,d,loss,loss\n1e8,1e9,3.0,2.9\n")
    with pytest.raises(DataError, match=r"runs.csv: it has several columns 'loss': rename or drop all but one"):
        report.read(path)
    frame = pd.DataFrame([[1e8, 1e9, 3.0, 2.9]], columns=["n", "d", "loss", "loss"])
    with pytest.raises(DataError, match="several columns 'loss'"):
        report.read(frame)
    with pytest.raises(DataError, match=r"column 'n' is taken for n and d: give each its own"):
        table.find(runs(), sc.LAWS["chinchilla"], named={"d": "n"})
    (found,) = table.find(runs().assign(LOSS=1.0), sc.LAWS["chinchilla"])
    assert "loss could also be 'LOSS'" in found.notes


def test_the_best_of_each_configuration():
    frame = pd.concat([runs(), runs().assign(loss=lambda rows: rows["loss"] * 1.1)], ignore_index=True)
    (found,) = table.find(frame.sample(frac=1, random_state=0), sc.LAWS["chinchilla"], best=True)
    assert "the best of each n, d: 60 of 120 runs" in found.notes
    np.testing.assert_allclose(np.sort(found.columns["loss"]), np.sort(runs()["loss"]))
    inputs = {name: frame[name].to_numpy() for name in ("n", "d")}
    (doubt,) = repeated(inputs, frame["loss"].to_numpy())
    assert doubt.startswith("120 runs share their n, d with others, and differ in loss by 10.0% (median)")


def test_runs_that_decide_a_parameter_are_named():
    """Five runs on far fewer tokens than the others, which went wrong alike: without them, beta is another."""
    frame = runs(100)
    frame["d"] = 10 ** (10 + 0.5 * np.log10(frame["d"] / 1e10))
    wrong = np.arange(5)
    frame.loc[wrong, "d"] = 3e8
    noise = np.exp(0.003 * np.random.default_rng(1).standard_normal(100))
    frame["loss"] = np.asarray(sc.LAWS["chinchilla"](n=frame["n"].to_numpy(), d=frame["d"].to_numpy(), **TRUTH)) * noise
    frame.loc[wrong, "loss"] *= 0.9
    _, found = fit_with_doubts(frame)
    decided = [doubt for doubt in found if "of 100 runs decide" in doubt]
    assert any("decide beta" in doubt and "without runs 0, 1, 2, 3, " in doubt for doubt in decided), found


def test_residuals_with_a_trend_are_told():
    """Losses that bend more than the law: a power in the data with a break."""
    x = np.geomspace(1e6, 1e10, 100)
    noise = np.exp(1e-4 * np.random.default_rng(0).standard_normal(100))
    fit = sc.fit("m1", {"x": x, "loss": (0.7 + 30 * x**-0.2) * noise})
    found = list(doubts(fit, {name: np.full(40, value) for name, value in fit.parameters.items()}, 0.95))
    assert any("residuals have a trend along x: their sign changes" in doubt for doubt in found)
    lowest = next(doubt for doubt in found if "lowest losses" in doubt)
    assert lowest.startswith("of the 20 lowest losses, 20 lie above the law")


def test_intervals_that_say_nothing_are_told():
    """Eight runs: coefficients run to 1e100 in resamples; errors stay finite, and the reader is told."""
    one, found = fit_with_doubts(runs(8, seed=3))
    assert any("8 runs for 5 free parameters" in doubt for doubt in found)
    assert any(doubt.startswith(("A lies between", "B lies between")) for doubt in found), found
    assert np.isfinite(one.table()["estimate"]).all()
    wild = one.draws["B"].copy()
    wild[:2] = 1e300, np.inf
    again = type(one)(**{**vars(one), "draws": {**one.draws, "B": wild}})
    assert np.isfinite(again.table().loc["E", "error"])


@public
def test_public_runs_beyond_those_fitted_are_covered():
    """The lower 70 % of three sets: nine of ten of the others lie in the interval of one run."""
    frame = report.read(SHARED / "gadre" / "model_losses.csv")
    porian = report.read(SHARED / "porian" / "isoflop_data.csv")
    sets = [porian[porian["config"] == f"summary_df|rw|base|{name}"] for name in SETS]
    sets = [rows.rename(columns={"t": "d"})[["n", "d", "loss"]].astype(float) for rows in sets]
    rows = frame[(frame["train_dataset"] == "rpj") & (frame["val_set"] == "c4_val")]
    sets.append(rows.rename(columns={"params": "n", "tokens": "d"})[["n", "d", "loss"]].astype(float))
    inside, among = [], []
    for rows in sets:
        along = np.log10(rows["n"] * rows["d"])
        smaller = along <= np.quantile(along, 0.7)
        one, _ = fit_with_doubts(rows[smaller])
        more = rows[~smaller]
        predicted = one.predict(n=more["n"].to_numpy(), d=more["d"].to_numpy())
        inside += list((predicted.run[0] < more["loss"]) & (more["loss"] < predicted.run[1]))
        among += list((predicted.in_sample[0] < more["loss"]) & (more["loss"] < predicted.in_sample[1]))
    assert np.mean(among) < 0.8
    assert np.mean(inside) > 0.9


SETS = ("long|kaplan|kaplan|train", "short|chinchilla|standard|val")
