"""A machine that computes wrong numbers is found out, and named with its remedy."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from theorysim import doctor


def test_this_machine_computes_right_numbers():
    checks = doctor.self_check()
    assert {check.wrong for check in checks} == {0}
    assert {"float32", "float64"} == {check.kernel.split(", ")[1] for check in checks}


def test_wrong_rows_are_counted_and_refused(monkeypatch):
    """What jaxlib 0.10.2 does: rows past 16 384 of a vmapped product and reduction are wrong."""

    def wrong_vmap(fn, in_axes):
        def batched(matrix, points):
            right = jnp.abs(points @ matrix.T).sum(1)
            return jnp.where(jnp.arange(len(points)) < 16_384, right, 0.9 * right)

        return batched

    monkeypatch.setattr(jax, "vmap", wrong_vmap)
    with pytest.raises(doctor.WrongNumbersError, match=r"float64, W 3 x 3: 23616 of 40000 rows.*jaxlib==0\.10\.1"):
        doctor.self_check()


def test_a_bad_jaxlib_warns_with_the_remedy_and_changes_nothing(monkeypatch):
    monkeypatch.setattr(doctor, "version", lambda package: "0.10.2")
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=somewhere")
    with pytest.warns(RuntimeWarning, match=r"jaxlib 0\.10\.2 computes wrong numbers.*pip install 'jaxlib==0\.10\.1'"):
        doctor.warn_if_known_bad()
    doctor.switch_bad_fusion_off()
    doctor.warn_if_known_bad()  # the fusion is off, and the warning with it
    assert not doctor.is_known_bad()


def test_importing_the_package_loads_no_jax_and_changes_no_setting():
    code = (
        "import sys, theorysim; assert 'jax' not in sys.modules\n"
        "import jax, jax.numpy as jnp; theorysim.infinite, theorysim.sweep, theorysim.networks, theorysim.study\n"
        "assert jnp.zeros(()).dtype == 'float32'; assert 'matplotlib' not in sys.modules, 'xarray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_names_are_refused_with_those_there_are():
    import theorysim

    with pytest.raises(AttributeError, match=r"no attribute 'spectre': it has Grid, .*infinite"):
        _ = theorysim.spectre
    assert {"sweep", "infinite"} <= set(dir(theorysim))


def test_the_description_names_versions_and_devices():
    described = doctor.describe()
    assert described["jax"] == jax.__version__
    assert described["devices"].count("cpu:") == 8
    assert described["x64"] == "on"
