"""What claim 7 measures of exit rules, against values by hand."""

import importlib
import math

import numpy as np
import pytest
import xarray as xr

from looplens.gallery.scripts import folder


@pytest.fixture
def measures(monkeypatch):
    monkeypatch.syspath_prepend(str(folder()))
    return importlib.import_module("measures_c07")


@pytest.fixture
def rules():
    """Four iterations; a gate with a good threshold, a useless one and one that is out of order."""
    policies = [
        ("depth", 1, 1.0, 0.2), ("depth", 3, 3.0, 0.96), ("depth", 2, 2.0, 0.4),
        ("depth", 4, 4.0, 1.0), ("gate", 0.9, 3.0, 0.7), ("gate", 0.5, 2.0, 0.8),
        ("kl", 0.1, 2.5, 0.2),
    ]  # fmt: skip
    names, thresholds, iterations, accuracy = map(list, zip(*policies, strict=True))
    return xr.Dataset(
        {
            "rule": ("policy", names),
            "threshold": ("policy", np.array(thresholds, dtype=float)),
            "iterations": ("policy", iterations),
            "gflops": ("policy", 10 * np.array(iterations)),
            "accuracy": ("policy", accuracy),
        },
        coords={"iteration": np.arange(1, 5)},
    )


def test_accuracy_at_mixes_thresholds_and_keeps_the_best(measures, rules):
    at = measures.accuracy_at(rules, "gate", [1, 1.5, 2, 3, 3.5, 4], "iterations")
    # From leaving at once (0.2) to 0.8 at 2; 0.7 at 3 is worse than what 2 buys.
    assert at.tolist() == pytest.approx([0.2, 0.5, 0.8, 0.8, 0.9, 1.0])
    at = measures.accuracy_at(rules, "depth", [15, 25, 40], "gflops")
    assert at.tolist() == pytest.approx([0.3, 0.68, 1.0])


def test_rules_are_compared_until_a_fixed_depth_is_saturated(measures, rules):
    # Depth 3 has 96 % of the accuracy after four iterations: budgets go from 1 to 3.
    assert measures.worth(rules, "depth") == pytest.approx((0.3 + 0.68) / 2, abs=2e-3)
    assert measures.worth(rules, "gate") == pytest.approx((0.5 + 0.8) / 2, abs=2e-3)
    assert measures.worth(rules, "gate", "gflops", start=2) == pytest.approx(0.8)
    # KL has one useless threshold, at 2.5: up to there it is no better than leaving at once.
    steep = np.interp(np.linspace(1, 3, 101), [2.5, 4], [0.2, 1.0]).mean()
    assert measures.worth(rules, "kl") == pytest.approx(steep)
    # Where the fixed depth is saturated from the start, one iteration is left to compare.
    assert measures.worth(rules, "depth", start=3) == pytest.approx(0.98)


def test_an_answer_needs_the_iteration_from_which_it_stays_right(measures):
    right = np.array([[1, 0, 1, 1], [0, 0, 0, 1], [1, 1, 1, 1], [0, 1, 1, 0]], dtype=bool)
    needed = measures.first_right(right)
    assert needed[:3].tolist() == [3, 4, 1]
    assert math.isnan(needed[3])


def test_correlation_within_groups(measures):
    exits = np.array([1.0, 2.0, 5.0, 9.0])
    groups, alone = np.array([1, 1, 2, 2]), np.zeros(4)
    needed = np.array([2.0, 1.0, 4.0, 3.0])  # rises over groups, falls within
    assert measures.correlation(needed, exits, alone) == pytest.approx(0.6)
    assert measures.correlation(needed, exits, groups) == pytest.approx(-1)
    assert measures.correlation(np.full(4, 3.0), exits, alone) == 0
    missing = np.array([1.0, 2.0, math.nan, 3.0])
    assert measures.correlation(missing, exits, alone) == pytest.approx(1)
