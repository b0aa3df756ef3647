"""One exit rule at all of its thresholds: what it keeps, what it costs, and when tokens leave.

The numbers are those of the analysis ``exits``. All thresholds come with the figure, so that a
browser can move from one to the next: ``layout.meta["bench"]`` holds for each what the line, the
histogram and the words show there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from looplens import analysis
from looplens.analysis import EXIT_RULES
from looplens.analysis.analyzers.exits import safe_policies
from looplens.errors import AnalysisError, InputError, near_matches
from looplens.plots import _exit_bench_panels as _panels
from looplens.plots import _labels, _marks, _select, _theme


def exit_bench(
    run: Any,
    rule: str | None = None,
    threshold: float | None = None,
    *,
    token: int | None = None,
    restart: int = 0,
    iteration: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Show what one exit rule keeps and costs, and after which iterations tokens leave.

    Parameters
    ----------
    run : looplens.Run
        A run with readouts and all iterations.
    rule : str or None
        One of ``looplens.analysis.EXIT_RULES`` that the run was judged by; None for the cheapest
        one that loses next to nothing, ``kl`` where none does.
    threshold : float or None
        One of the thresholds of the bench, which is marked. None for the cheapest one that loses at
        most one point of the best accuracy, the rule's default where none does.
    token, restart : int, optional
        A trajectory whose own exit is drawn beside the mean.
    iteration : int or None
        Where the cursor of the histogram stands; None keeps it out of sight.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Over the thresholds, from those that leave early to those that leave late: accuracy,
        agreement with full depth, and the mean iteration of the exit. Below, the share of
        trajectories that leave after each iteration, at the marked threshold.

    Raises
    ------
    InputError
        For a rule or threshold that the bench does not have.
    AnalysisError
        If the run has no readout or not every iteration.

    References
    ----------
    Geiping et al., arXiv 2502.05171, section 6.1; Zhu et al., arXiv 2510.25741 (comparison of exit
    strategies).
    """
    results = analysis.get(run, "exits")
    rules = list(dict.fromkeys(map(str, results["rule"].values)))
    safe = safe_policies(results)
    if rule is None:
        others = [name for name in safe if name != "depth"]
        rule = next(iter(others), "kl" if "kl" in rules else rules[-1])
    if rule not in rules:
        raise InputError(
            f"The exit rule {rule!r} is not on the bench of this run, which has: "
            f"{', '.join(rules)}.{near_matches(str(rule), rules)}"
        )
    places = np.flatnonzero(results["rule"].values == rule)
    if "exit_share" not in results:
        raise AnalysisError(
            "The stored analysis 'exits' does not say when tokens leave. Run `looplens analyze` "
            "on the run again."
        )
    own, name = None, ""
    if token is not None:
        token, restart = _select.token(run, token), _select.restart(run, restart)
        exits = results["exit_iteration"].isel(restart=restart, token=token)
        own = exits.values[places]
        name = f"token {_labels.token_labels(run, [token], position=True)[0]}"
    subtitle = _labels.subtitle(
        run,
        EXIT_RULES[rule].title if rule in EXIT_RULES else rule,
        f"{results.attrs['judged_tokens']} tokens ({results.attrs['judged']})",
    )
    best = safe.get(rule)
    return exit_bench_figure(
        results.drop_vars("exit_iteration").isel(policy=places).load(),
        threshold=threshold,
        safe=None if best is None else float(results["threshold"].values[best]),
        own=own,
        own_name=name,
        iteration=iteration,
        subtitle=subtitle,
        theme=theme,
    )


def exit_bench_figure(
    policies: xr.Dataset,
    *,
    threshold: float | None = None,
    safe: float | None = None,
    own: np.ndarray | None = None,
    own_name: str = "",
    iteration: int | None = None,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw the policies of one rule from the dataset of the analysis ``exits``.

    Parameters
    ----------
    policies : Dataset
        ``iterations``, ``agreement``, ``at_end``, ``is_default``, and if known ``accuracy`` and
        ``gflops`` (policy); ``exit_share`` (policy, iteration); with the coordinates ``rule`` and
        ``threshold``.
    threshold, iteration, subtitle, theme
        See :func:`exit_bench`.
    safe : float or None
        The cheapest threshold that loses next to nothing.
    own : ndarray, shape (policy,), or None
        When one trajectory leaves.
    own_name : str
        Which one.
    """
    thresholds = policies["threshold"].values.tolist()
    stands = _stands(thresholds, threshold, safe, policies["is_default"].values)
    colours = _theme.palette(theme)
    made = _theme.figure(
        title="Exit rule: what it keeps, and when tokens leave",
        subtitle=subtitle,
        theme=theme,
        height=560,
    )
    made = _panels.laid_out(made)
    places = list(range(len(thresholds)))
    words = [_labels.number(value, digits=2) for value in thresholds]
    exact = [f"{value:g}" for value in thresholds]
    for variable, title, colour, dash, symbol in _panels.CURVES:
        if variable in policies:
            made.add_trace(
                go.Scatter(
                    name=title,
                    x=places,
                    y=policies[variable].values,
                    text=exact,
                    mode="lines+markers",
                    line={"color": colours.categories[colour], "dash": dash, "width": 2},
                    marker={"symbol": symbol, "size": 7},
                    hovertemplate="threshold %{text}<br>" + title + " %{y:.1%}<extra></extra>",
                    meta={"role": _panels.THRESHOLD},
                ),
                row=1,
                col=1,
            )
    _panels.add_exits(made, policies, own, own_name, exact, colours)
    times = policies["iteration"].values
    shares = policies["exit_share"].transpose("policy", "iteration").values
    made.add_trace(
        go.Bar(
            name="leave",
            x=times,
            y=shares[stands],
            marker={"color": colours.categories[0]},
            showlegend=False,
            hovertemplate="iteration %{x}<br>%{y:.1%} leave<extra></extra>",
            meta={"role": "histogram"},
        ),
        row=3,
        col=1,
    )
    said = _panels.says(policies)
    _panels.add_marks(made, stands, said[stands], colours)
    _marks.add_line(made, iteration, colours, axis="3")
    made.update_xaxes(range=[-0.5, len(places) - 0.5], **_panels.ticks(words), row=1, col=1)
    made.update_xaxes(
        range=[-0.5, len(places) - 0.5],
        title="threshold: leaves early ← → leaves late",
        **_panels.ticks(words),
        row=2,
        col=1,
    )
    made.update_xaxes(
        title="iteration of the exit", range=[times[0] - 0.5, times[-1] + 0.5], row=3, col=1
    )
    made.update_layout(
        legend={"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom"},
        margin={"t": 112},
        bargap=0.1,
        meta={
            "bench": {
                "rule": str(policies["rule"].values[0]),
                "words": exact,
                "thresholds": thresholds,
                "stands": stands,
                "default": int(np.argmax(policies["is_default"].values))
                if policies["is_default"].values.any()
                else None,
                "safe": None if safe is None else thresholds.index(safe),
                "exit_share": [[round(float(value), 5) for value in row] for row in shares],
                "says": said,
            }
        },
    )
    return made


def _stands(
    thresholds: list[float], threshold: float | None, safe: float | None, default: np.ndarray
) -> int:
    """Return the place of the marked threshold."""
    if threshold is None:
        if safe is not None:
            return thresholds.index(safe)
        return int(np.argmax(default)) if default.any() else len(thresholds) // 2
    if float(threshold) not in thresholds:
        held = ", ".join(f"{value:g}" for value in thresholds[:24])
        raise InputError(
            f"The bench has no threshold {threshold:g} of this rule; it has: {held}. Others come "
            "with `looplens analyze` or run.analyze('exits', exit_thresholds={...})."
        )
    return thresholds.index(float(threshold))
