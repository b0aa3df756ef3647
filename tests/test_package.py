"""What importing and starting looplens pulls in, and what its public face is."""

import json
import subprocess
import sys

import pytest

import looplens

HEAVY = ["torch", "transformer_lens", "dash", "plotly", "xarray", "zarr", "sklearn", "scipy"]


def loaded_by(code: str) -> set[str]:
    program = (
        f"import sys, json\n{code}\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_is_light():
    assert loaded_by("import looplens") == set()


def test_help_is_light():
    code = (
        "import sys; from looplens.cli import main; sys.argv = ['looplens', '--help']\n"
        "try: main()\nexcept SystemExit: pass"
    )
    assert loaded_by(code) == set()


def test_looking_at_a_run_needs_no_torch():
    code = (
        "import looplens.run, looplens.analysis, looplens.plots, looplens.reports, looplens.tasks\n"
        "import looplens.testing, looplens_dashboard"
    )
    assert loaded_by(code) & {"torch", "transformer_lens"} == set()


def test_every_public_name_is_there():
    for name in looplens.__all__:
        assert getattr(looplens, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        looplens.nothing  # noqa: B018
