"""What a report is written from: a run, the results of its analyses, and why some are missing.

Every analysis is fetched once. One that the run does not allow, or that fails on a damaged part,
becomes a reason instead of an exception: a report is the place to say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from looplens import analysis
from looplens.analysis.dynamics import DYNAMICS, dynamics_results, dynamics_summary
from looplens.errors import LoopLensError


class Material:
    """A run with its analyses, each computed or read once.

    Parameters
    ----------
    run : looplens.Run
        The opened run.

    Attributes
    ----------
    run : looplens.Run
        The run.
    results : dict of str to Dataset
        The analyses that are there.
    reasons : dict of str to str
        Why the others are not.
    dynamics : dict of str to Dataset
        What the dynamics lab stored, by name.
    summary : dict
        ``{analysis: {name: value}}`` of the analyses that are there, and of the lab.
    """

    def __init__(self, run: Any) -> None:
        self.run = run
        self.results: dict[str, xr.Dataset] = {}
        self.reasons: dict[str, str] = {}
        self.summary: dict[str, Mapping[str, Any]] = {}
        for name, analyzer in analysis.ANALYZERS.items():
            if not analyzer.expected(run):
                continue
            reason = analyzer.needs(run)
            if reason is None:
                try:
                    self.results[name] = analysis.get(run, name)
                    self.summary[name] = analyzer.summary(self.results[name], run)
                    continue
                except LoopLensError as error:
                    reason = str(error)
            self.reasons[name] = reason
        self.dynamics = dynamics_results(run)
        if self.dynamics:
            self.summary[DYNAMICS] = dynamics_summary(run)

    def __contains__(self, name: str) -> bool:
        return name in self.results

    def __getitem__(self, name: str) -> xr.Dataset:
        return self.results[name]

    def number(self, name: str, key: str) -> float:
        """Return a number of the summary; NaN where it is missing."""
        value = self.summary.get(name, {}).get(key)
        return float(value) if isinstance(value, int | float) else float("nan")


def telling_prompt(material: Material, recorded: tuple[int, ...] | None = None) -> int:
    """Return the prompt with the most trajectories that are not fixed points.

    Parameters
    ----------
    material : Material
        The run and its analyses.
    recorded : tuple of int or None
        Prompts to choose from; None for all. The first one wins a tie. Of an incomplete run only
        those whose beginning is recorded are chosen, where there is one.
    """
    run = material.run
    allowed: Sequence[int] = range(run.n_prompts) if recorded is None else recorded
    there = run.committed_tokens
    begun = there[run.prompts["first_token"].values[list(allowed)]]
    allowed = [prompt for prompt, found in zip(allowed, begun, strict=True) if found] or allowed
    if "classify" not in material:
        return next(iter(allowed))
    moving = (material["classify"]["regime"].transpose("restart", "token") != "fixed_point").values
    moving &= there
    return max(allowed, key=lambda prompt: int(moving[:, run.token_range(prompt)].sum()))
