"""``python -m benchmarks.agreement``: do eigenvalues predict how tokens of bundled models move?

Records prompts of each model, takes spectra and causes of them, and prints the share of tokens
whose measured rates lie within 5 % of the predicted ones, and what moves the tokens that move.
Three measurements, none with a derivative: a gap that is brought back to its length
(``measured_rate``), the slowest mode of the recorded motion run again in float64
(``replayed_rate``), and a single slope through the recording as it is (``recorded_rate``, and of
the gap between restarts ``recorded_gap_rate``).
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import xarray as xr

import looplens as ll
from looplens.dynamics import causes, spectra
from looplens.models import model_card
from looplens.tasks import prompts_trained_on

WITHIN = 0.05
RUNS = {  # iterations, restarts
    "affine-huginn-mini": (64, 2),
    "phop-huginn-mini": (300, 2),
    "phop-ouro-mini": (400, 1),
}


def measured(name: str, prompts: int, folder: Path) -> tuple[xr.Dataset, xr.Dataset]:
    """Return spectra and causes of all prompts of a new recording."""
    model = ll.load_model(name)
    iterations, restarts = RUNS[name]
    drawn = prompts_trained_on(model_card(name), prompts)
    run = ll.record(
        model, drawn, out=folder / name, progress=False, iterations=iterations, restarts=restarts
    )
    return tuple(
        xr.concat(
            [function(model, run, prompt=prompt) for prompt in range(run.n_prompts)],
            "token",
            combine_attrs="override",
        )
        for function in (spectra, causes)
    )


def share(found: xr.Dataset, name: str, predicted: str) -> str:
    """Return the share of numbers within 5 % of the predicted one, and of how many."""
    ratio = found[name].values / found[predicted].values
    known = np.isfinite(ratio)
    if not known.any():
        return "none known"
    close = np.abs(ratio[known] - 1) < WITHIN
    worst = np.abs(ratio[known] - 1).max()
    return f"{close.mean():6.1%} of {known.sum()}, worst {worst:.1%}"


def main() -> None:
    """Print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--model", action="append", choices=RUNS)
    options = parser.parse_args()
    for name in options.model or RUNS:
        with tempfile.TemporaryDirectory() as folder:
            found, moving = measured(name, options.prompts, Path(folder))
        print(f"\n{name}: {found.sizes['token']} tokens")
        for regime in sorted(set(found["regime"].values.tolist())):
            part = found.isel(token=found["regime"].values == regime)
            print(f"  {regime} ({part.sizes['token']})")
            for rate in ("measured_rate", "replayed_rate", "recorded_rate", "recorded_gap_rate"):
                print(f"    {rate:18s} {share(part, rate, 'predicted_rate')}")
            print(
                f"    {'detected_period':18s} {share(part, 'detected_period', 'predicted_period')}"
            )
        own = moving.isel(token=np.isin(moving["cause"].values, ("own", "both")))
        print(f"  causes: {dict(Counter(moving['cause'].values.tolist()))}")
        for row in range(own.sizes["token"]):
            at = own.isel(token=row)
            value = complex(at["eigenvalue_real"], at["eigenvalue_imag"])
            print(
                f"    token {int(at['token'])} ({at['cause'].item()}): eigenvalue {value:.4f}, "
                f"predicted period {float(at['predicted_period']):.1f}, returns after "
                f"{float(at['cycle_period']):g}, amplitude {float(at['amplitude']):.3f}"
            )
            if np.isfinite(at["shorter_period"]):
                value = complex(at["shorter_multiplier_real"], at["shorter_multiplier_imag"])
                print(
                    f"      under it a cycle of period {float(at['shorter_period']):g}, "
                    f"multiplier {value:.4f}"
                )


if __name__ == "__main__":
    main()
