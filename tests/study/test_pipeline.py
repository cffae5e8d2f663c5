"""The pipeline on small studies: what runs again, what is written, what a failure leaves."""

import json
import re
import shutil
from pathlib import Path

import pytest

from theorysim import study
from theorysim.study import gallery, new, pipeline, record
from theorysim.study.claim import number
from theorysim.study.fingerprint import ROOT, fingerprint, modules
from theorysim.study.tex import to_html

SIMULATED = "simulated.txt"


CHEAP = """def simulate(preset):
    import xarray as xr

    samples = np.random.default_rng(0).normal(1.0, 0.1, (preset.repeats, 3, DEPTH)) + 1e-6 * preset.width
    labels = {"weight_var": [1.0, 2.0, 3.0], "layer": 1 + np.arange(DEPTH)}
    return ts.study.tree(
        theory=xr.Dataset({"variance": (("weight_var", "layer"), np.ones((3, DEPTH)))}, labels),
        simulation=xr.Dataset({"variance": (("repeat", "weight_var", "layer"), samples)}, labels),
    )


"""


COUNT = f"""    with open(Path(__file__).parents[1] / {SIMULATED!r}, "a") as file:
        file.write("x")
"""


def write_demo(folder):
    """The template study, without JAX to compile; it counts its simulations."""
    path = new.write("demo", folder / "studies")
    head, body = path.read_text().split("def simulate(preset):\n")
    path.write_text(head + CHEAP + "# %%\ndef claims" + body.split("# %%\ndef claims")[1])
    edit(path, "def simulate(preset):\n", "def simulate(preset):\n" + COUNT)
    edit(path, "import theorysim as ts\n", "import theorysim as ts\nfrom pathlib import Path\n")
    return folder


@pytest.fixture
def folder(tmp_path):
    """A folder with a cheap study."""
    return write_demo(tmp_path)


@pytest.fixture(scope="module")
def drawn_once(tmp_path_factory):
    folder = write_demo(tmp_path_factory.mktemp("drawn"))
    assert run(folder).error == ""
    return folder


@pytest.fixture
def drawn(drawn_once, tmp_path):
    """A folder with a cheap study that was drawn."""
    return shutil.copytree(drawn_once, tmp_path, dirs_exist_ok=True)


def edit(path, before, after):
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def run(folder, name="demo", preset="smoke"):
    return pipeline.run(folder / "studies" / f"{name}.py", preset, folder / "figures" / preset)


def flaw(folder):
    return record.flaw(folder / "studies/demo.py", "smoke", folder / "figures/smoke")


def simulations(folder):
    return len((folder / SIMULATED).read_text())


def written(folder):
    out = folder / "figures" / "smoke" / "demo"
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name != "times.json"}


def test_a_study_writes_figures_data_and_claims(folder):
    outcome = run(folder)
    assert outcome.error == ""
    assert outcome.holds
    assert outcome.simulated
    assert set(written(folder)) == {"variance.png", "variance.pdf", "data.nc", "claims.json"}
    found = json.loads(written(folder)["claims.json"])
    assert found["title"] == "The variance of deep layers"
    assert found["sources"] == ["arXiv:1606.05340"]
    assert found["claims"][0]["holds"] is True
    assert found["fingerprint"] == fingerprint(folder / "studies/demo.py", "smoke")


def test_the_template_runs_and_its_claim_holds(tmp_path):
    new.write("demo", tmp_path / "studies")
    outcome = run(tmp_path)
    assert outcome.error == ""
    assert outcome.holds
    assert outcome.simulated
    assert set(written(tmp_path)) == {"variance.png", "variance.pdf", "data.nc", "claims.json"}


def test_two_runs_write_the_same_bytes(folder):
    run(folder)
    first = written(folder)
    shutil.rmtree(folder / "figures")
    run(folder)
    assert simulations(folder) == 2
    assert written(folder) == first
    run(folder)
    assert simulations(folder) == 2
    assert written(folder) == first


@pytest.mark.parametrize(
    ("before", "after", "again"),
    [
        ("DEPTH = 12", "DEPTH = 13", True),
        ('"smoke": Preset(100, 16)', '"smoke": Preset(100, 17)', True),
        ('"paper": Preset(1000, 1024)', '"paper": Preset(2000, 1024)', False),
        ("    return ts.study", "    # a comment\n    return ts.study", False),
        ('TITLE = "The variance of deep layers"', 'TITLE = "Another title"', False),
        ("tolerance=3 /", "tolerance=4 /", False),
        ('xlabel="layer"', 'xlabel="depth"', False),
    ],
)
def test_only_what_the_numbers_depend_on_is_simulated_again(drawn, before, after, again):
    assert flaw(drawn) == ""
    edit(drawn / "studies/demo.py", before, after)
    edited = "" if "# a comment" in after else "stale: it was edited after it was drawn"
    assert flaw(drawn) == ("stale: its code or data changed after it was simulated" if again else edited)
    outcome = run(drawn)
    assert outcome.simulated == again
    assert simulations(drawn) == 1 + again
    assert flaw(drawn) == ""


def test_a_study_depends_on_the_modules_it_names_and_theirs(tmp_path):
    import ast

    def names(code):
        return {str(path.relative_to(ROOT)) for path in modules(ast.parse(code))}

    sweep_only = names("import theorysim as ts\nts.sweep(f, ts.Grid(x=[1.0]))")
    assert {"__init__.py", "doctor.py", "engine/sweep.py", "engine/output.py"} <= sweep_only
    assert not any(name.startswith(("infinite", "networks", "study")) for name in sweep_only)
    phase = names("import theorysim as ts\nts.infinite.phase.chi(f, 1.0, 2.0)")
    assert {"infinite/phase.py", "quadrature.py", "typing.py"} <= phase
    assert not any(name.startswith(("networks", "engine")) for name in phase)
    assert "networks/mlp.py" in names("from theorysim.networks import MLP")
    assert "networks/mlp.py" in names("from theorysim import networks\nnetworks.MLP")
    assert "infinite/kernel.py" in names("import theorysim.infinite.kernel")
    data = names("import theorysim as ts\nts.study.digits(9, scale='set')")
    assert "study/dataset.py" in data
    assert not any(name.endswith(("pipeline.py", "gallery.py")) for name in data)


def test_a_changed_module_is_seen_and_its_comments_are_not(tmp_path, monkeypatch):
    package = shutil.copytree(ROOT, tmp_path / "theorysim", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr("theorysim.study.fingerprint.ROOT", package)
    path = new.write("demo", tmp_path / "studies")
    before = fingerprint(path, "smoke")
    edit(package / "infinite/phase.py", "    low, high, crosses = ", "    # a comment\n    low, high, crosses = ")
    edit(package / "figure.py", '"savefig.dpi": 250', '"savefig.dpi": 300')
    edit(package / "study/claim.py", "digits: int = 4", "digits: int = 5")
    assert fingerprint(path, "smoke") == before
    edit(
        package / "infinite/phase.py",
        "jnp.maximum(root(excess, low, high), 0.0)",
        "jnp.maximum(root(excess, low, high), 1e-9)",
    )
    assert fingerprint(path, "smoke") != before


def test_a_failing_claim_fails_and_everything_is_drawn(folder):
    edit(folder / "studies/demo.py", "predicted=0,", "predicted=100,")
    outcome = run(folder)
    assert not outcome.error
    assert not outcome.holds
    assert {"variance.png", "claims.json"} <= set(written(folder))
    assert json.loads(written(folder)["claims.json"])["claims"][0]["holds"] is False


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("TITLE =", "NAME =", "lacks TITLE"),
        ('"laptop"', '"desktop"', "has the presets"),
        ('("arXiv:1606.05340",)', '("arXiv:1606.05340")', "SOURCES = 'arXiv:1606.05340': write a tuple"),
        ('("arXiv:1606.05340",)', '("arXiv:9999.99999",)', "names 'arXiv:9999.99999': add an entry"),
        ('"deep variance",', '"",', "a claim has name='': give its name"),
        ("yield ts.study.Claim(", "yield (lambda *_, **__: 1)(", "yields int: it yields Claims"),
        ("import theorysim as ts", "import theorysim as ts\nimport nothing_like_this", "nothing_like_this"),
        ("return ts.study.tree(", "return dict(", "it returns an xarray.DataTree with the nodes"),
        ("yield ts.study.Claim(", "return []\n    yield ts.study.Claim(", "states at least one checked number"),
        ("tolerance=3 / np.sqrt(deviations.size)", "tolerance=np.inf", "give a finite number > 0"),
        ("figure, axes =", "1 / 0\n    figure, axes =", "ZeroDivisionError"),
    ],
)
def test_a_broken_study_says_why_and_leaves_no_older_record(drawn, before, after, message):
    edit(drawn / "studies/demo.py", before, after)
    outcome = run(drawn)
    assert re.search(message, outcome.error)
    assert not outcome.holds
    left = json.loads(written(drawn)["claims.json"])
    assert left["claims"] == []
    assert re.search(message, left["error"])
    page = gallery.write_page(drawn / "figures/smoke", drawn / "studies").read_text()
    assert "Does not run" in page


def test_what_simulate_uses_counts_wherever_it_stands(folder):
    path = folder / "studies/demo.py"
    edit(path, "DEPTH = 12\n", "from beside import SPREAD  # noqa\n")
    edit(path, "normal(1.0, 0.1,", "normal(1.0, SPREAD,")
    edit(path, '# %%\nif __name__ == "__main__"', 'DEPTH = 12\n\n\n# %%\nif __name__ == "__main__"')
    (folder / "studies/beside.py").write_text("SPREAD = 0.1\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder / "studies"))
        assert run(folder).error == ""
    before = fingerprint(path, "smoke")
    edit(path, "DEPTH = 12", "DEPTH = 5")
    after = fingerprint(path, "smoke")
    (folder / "studies/beside.py").write_text("SPREAD = 0.2\n")
    assert len({before, after, fingerprint(path, "smoke")}) == 3


def test_data_files_that_simulate_names_count(folder):
    """Beside the study, also through a folder; a file that only `draw` names, and one that is not there, do not."""
    path, data = folder / "studies/demo.py", folder / "studies/data"
    edit(path, "def simulate(preset):\n", 'def simulate(preset):\n    HERE / "data" / "runs.csv", "absent.csv"\n')
    edit(path, "DEPTH = 12\n", "from pathlib import Path\n\nDEPTH = 12\nHERE = Path(__file__).parent\n")
    edit(path, "def draw(data):\n", 'def draw(data):\n    "logo.svg"\n')
    data.mkdir()
    (data / "runs.csv").write_text("1")
    before = fingerprint(path, "smoke")
    (folder / "studies/logo.svg").write_text("1")
    assert fingerprint(path, "smoke") == before
    (data / "runs.csv").write_text("2")
    assert fingerprint(path, "smoke") != before


def test_all_presets_count_where_simulate_names_them(folder):
    path = folder / "studies/demo.py"
    edit(path, "DEPTH = 12", 'DEPTH = len(PRESETS["paper"]) + 10')
    before = fingerprint(path, "smoke")
    edit(path, '"paper": Preset(1000, 1024)', '"paper": Preset(2000, 1024)')
    assert fingerprint(path, "smoke") != before


@pytest.mark.parametrize(
    ("place", "message"),
    [("def simulate(preset):\n", "changed while it ran"), ("def draw(data):\n", "was edited while it ran")],
)
def test_an_edit_while_a_study_runs_is_not_recorded(folder, place, message):
    path = folder / "studies/demo.py"
    touch = f"    with open({str(path)!r}, 'a') as file:\n        file.write('\\nABSENT = 1\\nABSENT\\n')\n"
    edit(path, place, place + touch)
    assert message in run(folder).error
    assert flaw(folder) == "broken"
    assert (folder / "figures/smoke/demo/data.nc").exists() == ("draw" in place)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\x00", b"[]", b"{}"])
@pytest.mark.parametrize("name", ["data.nc", "claims.json", "times.json"])
def test_a_damaged_file_counts_as_absent(drawn, name, content):
    before = written(drawn)
    (drawn / "figures/smoke/demo" / name).write_bytes(content)
    if name != "data.nc":
        assert (flaw(drawn) == "") == (name == "times.json")
        gallery.write_page(drawn / "figures/smoke", drawn / "studies")
    outcome = run(drawn)
    assert outcome.error == ""
    assert outcome.simulated == (name == "data.nc")
    assert written(drawn) == before


def test_records_are_valid_json_where_numbers_are_not_finite(folder):
    edit(folder / "studies/demo.py", "measured=deviations.mean()", "measured=np.nan")
    edit(folder / "studies/demo.py", "standard_error=1 / np.sqrt(deviations.size)", 'kind="at least"')
    outcome = run(folder)
    assert not outcome.error
    assert not outcome.holds

    def refuse(constant):
        raise AssertionError(constant)

    claim = json.loads(written(folder)["claims.json"], parse_constant=refuse)["claims"][0]
    assert (claim["measured"], claim["standard_error"], claim["span"]) == (None, None, [None, None])
    assert claim["numbers"].startswith("undefined for at least 0 + ")
    page = gallery.write_page(folder / "figures/smoke", folder / "studies").read_text()
    assert ">undefined<" in page
    assert "at least 1.7 above" in page
    assert "0 of 1 hold" in page


def test_a_study_may_name_works_of_its_own(folder):
    edit(folder / "studies/demo.py", '("arXiv:1606.05340",)', '("doi:10.1000/mine",)')
    (folder / "studies/references.bib").write_text(
        "@article{me,\n  title = {Mine},\n  year = {2026},\n  doi = {10.1000/mine},\n}"
    )
    assert run(folder).error == ""
    assert "Mine (2026)" in gallery.write_page(folder / "figures/smoke", folder / "studies").read_text()


def test_a_study_that_goes_to_another_folder_is_written_where_it_was_asked_for(folder, monkeypatch):
    monkeypatch.chdir(folder)
    edit(folder / "studies/demo.py", "DEPTH = 12", "DEPTH = 12\nimport os\n\nos.chdir('/')")
    outcome = pipeline.run(Path("studies/demo.py"), "smoke", Path("figures/smoke"))
    assert outcome.error == ""
    assert "claims.json" in written(folder)


def test_a_study_cannot_end_the_run_or_change_the_next(folder):
    import jax
    import matplotlib.pyplot as plt

    studies = folder / "studies"
    (studies / "exits.py").write_text("import sys\nsys.exit(0)\n")
    outcome = run(folder, "exits")
    assert "SystemExit" in outcome.error
    assert not outcome.holds
    size = plt.rcParams["font.size"]
    edit(studies / "demo.py", "DEPTH = 12", "DEPTH = 12\nplt.rcParams['font.size'] = 77")
    run(folder)
    assert plt.rcParams["font.size"] == size
    assert jax.numpy.zeros(()).dtype == "float64"


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("figure", "it returns figures by name"),
        ('{"a/b": figure}', "cannot name a file"),
        ('{"../b": figure}', "cannot name"),
        ('{"": figure}', "the figure '' of"),
        ('{"a#b": figure}', "the figure 'a#b' of"),
        ('{"a?b": figure}', "the figure 'a?b' of"),
    ],
)
def test_odd_figures_are_refused(folder, returned, message):
    edit(folder / "studies/demo.py", 'return {"variance": figure}', f"return {returned}")
    assert message in run(folder).error


def test_names_of_figures_may_have_dots(folder):
    edit(folder / "studies/demo.py", '{"variance": figure}', '{"w=0.5": figure, "w=0.7": figure}')
    run(folder)
    assert {"w=0.5.png", "w=0.7.png", "w=0.5.pdf", "w=0.7.pdf"} <= set(written(folder))


def test_an_interrupted_sweep_stops_the_pipeline_and_is_not_kept(folder):
    path = folder / "studies/demo.py"
    edit(path, "    return ts.study.tree(", "    data = ts.study.tree(")
    partial = "data = data.map_over_datasets(lambda d: d.assign_coords(computed=True))"
    edit(path, "# %%\ndef claims", f"    {partial}\n    return data\n\n\n# %%\ndef claims")
    with pytest.raises(KeyboardInterrupt):
        run(folder)
    assert not (folder / "figures/smoke/demo/data.nc").exists()


def test_the_page_shows_figures_claims_sources_and_provenance(drawn):
    page = gallery.write_page(drawn / "figures/smoke", drawn / "studies").read_text()
    for shown in (
        "The variance of deep layers",
        "demo/variance.png",
        "demo/variance.pdf",
        "demo/data.nc",
        "holds",
        "https://arxiv.org/abs/1606.05340",
        "jaxlib",
        "viewport",
        '<a href="demo/variance.png"><img loading="lazy"',
        "1 study, 1 claim",
        "all hold",
        "Exponential expressivity in deep neural networks through transient chaos (2016)",
    ):
        assert shown in page
    assert re.search(r'width="\d{3,4}" height="\d{3,4}"', page)


def test_formulas_are_set_in_sentences():
    def shown(sentence):
        return re.sub("</?i>", "", to_html(sentence).removeprefix('<span class="math">').removesuffix("</span>"))

    assert shown(r"$\sigma_w^2 = 4$") == "σ<sub>w</sub><sup>2</sup> = 4"
    assert shown(r"$N^{-1/2}$") == "N<sup>−1/2</sup>"
    assert shown(r"$\sqrt q + \sqrt{2 q}$") == "√q + √(2 q)"
    assert shown(r"$\frac{a}{b + c} \to \infty$") == "a/(b + c) → ∞"
    assert shown(r"$\hat{q}$") == "q\u0302"
    assert shown(r"$\log\,d$") == "log d"
    assert to_html("a < b, costs $5") == "a &lt; b, costs $5"
    assert "$" not in to_html(r"with $x < y$ and $\unknown{z}$")
    assert "<b>" not in to_html("$<b>$")
    assert number(-0.0) == "0"


def test_names_of_new_studies(tmp_path):
    new.write("demo", tmp_path)
    with pytest.raises(study.StudyError, match="is there already"):
        new.write("demo", tmp_path)
    for name in ("my-study", "_hidden", "class", "../escape"):
        with pytest.raises(study.StudyError, match="cannot name a study"):
            new.write(name, tmp_path)
