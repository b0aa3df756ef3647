"""Trajectories of tokens in principal components, in two or three dimensions.

The basis is the stored one of the run, or one fitted to the prompt, to the tokens or to their tails
(`looplens.analysis.projection`). Colour is the iteration; the symbol and the outline tell tokens
and layers apart. A strip below says how much of each state lies outside of what is drawn. A trace
named ``cursor`` marks one iteration and can be moved without asking Python again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from plotly.subplots import make_subplots

from looplens import analysis
from looplens.errors import InputError
from looplens.plots import _labels, _marks, _paths, _select, _theme

_MOST_PATHS = 24  # more cannot be told apart
_MOST_POINTS = 8_000  # more make a page slow, with WebGL too
_CAMERA = {"eye": {"x": 1.7, "y": 1.7, "z": 0.9}, "center": {"z": -0.12}}


def trajectory(
    run: Any,
    tokens: int | Iterable[int],
    restart: int = 0,
    layer: int | None = None,
    *,
    layers: Sequence[int | None] | None = None,
    basis: str = "run",
    dims: int = 2,
    components: Sequence[int] = (0, 1, 2),
    iteration: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Show the paths of some tokens through the principal components.

    Parameters
    ----------
    run : looplens.Run
        The opened run.
    tokens : int or iterable of int
        Global token numbers. Of many, evenly spaced ones are drawn and the subtitle says so.
    restart : int
        Which draw of the initial state.
    layer : int or None
        States after this core layer, or None for the loop state.
    layers : sequence of int or None, optional
        Several layers at once, in one basis, instead of `layer`; None among them is the loop state.
    basis : {"run", "prompt", "token", "tail"}
        What the components are fitted to; see `looplens.analysis.projection`. In the basis of the
        tail each path is seen from the mean of its own tail, and the view begins at the tails.
    dims : {2, 3}
        Dimensions of the figure.
    components : sequence of int
        Which components lie on the axes; the first ``dims`` are used.
    iteration : int or None
        Where the cursor stands; None keeps it out of sight.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        For each token and layer a path with markers coloured by iteration (``meta.role`` is
        ``"trajectory"``), the first and the last state marked, the trace ``cursor``, and below the
        share of each state's squared distance that lies off the plane.

    Raises
    ------
    InputError
        If something asked for does not exist.
    AnalysisError
        If the run holds no states to fit the components on.

    References
    ----------
    Geiping et al., arXiv 2502.05171, section 6 (one PCA for all tokens and iterations; six
    components).
    """
    chosen, restart = _select.tokens(run, tokens), _select.restart(run, restart)
    if layers is not None and layer is not None:
        raise InputError(
            f"Name the states once: layer={layer} or layers={tuple(layers)}, not both."
        )
    places = [_select.layer(run, value) for value in (layers if layers is not None else [layer])]
    if not places:
        raise InputError("layers is empty: name core layers, or None for the loop state.")
    if dims not in (2, 3):
        raise InputError(f"dims must be 2 or 3, got {dims!r}.")
    if len(components) < dims:
        raise InputError(f"dims={dims} needs {dims} components, got {tuple(components)}.")
    shown = _paths.spaced(chosen, _most_tokens(len(places), run.iterations))
    found = analysis.projection(
        run,
        shown,
        basis=basis,
        layers=places,
        restart=restart,
        components=components[:dims],
    )
    prompts = sorted({int(number) for number in run.tokens["prompt"].values[shown]})
    subtitle = _labels.subtitle(
        run,
        f"prompt {prompts[0]}" if len(prompts) == 1 else f"{len(prompts)} prompts",
        f"restart {restart}",
        ", ".join(map(_paths.place_name, found["layer"].values.tolist())),
        f"{len(shown)} of {len(chosen)} tokens are drawn" if len(shown) < len(chosen) else "",
    )
    return trajectory_figure(
        found,
        labels=_labels.token_labels(run, shown, position=True),
        iteration=iteration,
        subtitle=subtitle,
        theme=theme,
    )


def _most_tokens(places: int, iterations: int) -> int:
    return max(1, min(_MOST_PATHS, _MOST_POINTS // (iterations + 1)) // places)


def trajectory_figure(
    found: xr.Dataset,
    *,
    labels: Sequence[str],
    iteration: int | None = None,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw trajectories.

    Parameters
    ----------
    found : Dataset
        What `looplens.analysis.projection` returns, with two or three components; without
        ``off_plane`` there is no strip below. Its tokens are kept in ``meta`` for whoever handles
        clicks.
    labels : sequence of str
        One a token.
    iteration, subtitle, theme
        See :func:`trajectory`.
    """
    colours = _theme.palette(theme)
    dims = found.sizes["component"]
    paths = _paths.of(found, labels)
    axes = _titles(found, dims)
    made = _theme.figure(
        title="Trajectory of one token" if found.sizes["token"] == 1 else "Trajectories of tokens",
        subtitle="<br>".join(part for part in (subtitle, *_notes(found)) if part),
        theme=theme,
        height=560,
    )
    strip = "off_plane" in found
    if strip:
        make_subplots(
            rows=2,
            cols=1,
            row_heights=[0.8, 0.2],
            vertical_spacing=0.17 if dims == 2 else 0.06,
            specs=[[{"type": "scene" if dims == 3 else "xy"}], [{"type": "xy"}]],
            figure=made,
        )
    kind = _paths.kind(dims, sum(len(path.iterations) for path in paths))
    made.add_traces(
        [_paths.trace(kind, path, colours, dims, bar=path is paths[0]) for path in paths]
    )
    points = np.stack([path.points for path in paths])  # [path, iteration, dims]
    iterations = found["iteration"].values
    _marks.add_ends(made, kind, points, iterations, colours, dims)
    _marks.add_cursor(made, kind, points, iterations, iteration, colours, dims)
    if strip:
        axis, name = ("2", "off plane") if dims == 2 else ("", "off space")
        _paths.add_strip(made, paths, name, colours, axis=axis)
        _marks.add_line(made, iteration, colours, axis=axis)
    _finish(made, axes, dims, tail=_tail_range(found, points), shown=f"{subtitle} {labels}")
    return made


def _titles(found: xr.Dataset, dims: int) -> list[str]:
    """Name the axes with the variance that they explain."""
    of_variance = " of variance" if dims == 2 else ""  # three titles must fit around a cube
    shares = found["explained_variance_ratio"].values
    return [
        f"PC {int(axis) + 1} ({_labels.percent(share)}{of_variance})"
        for axis, share in zip(found["component"].values, shares, strict=True)
    ]


def _notes(found: xr.Dataset) -> list[str]:
    """Say what the basis was fitted to, and whether there is more than rounding to see in it."""
    told = found.attrs
    if "fitted_to" not in told:
        return []
    count = int(found["in_fit"].values.sum())
    of = {
        "run": told["fitted_to"],
        "prompt": f"{told['fitted_to']} of whole prompts",
        "token": f"{told['fitted_to']} of what is drawn",
        "tail": f"the last {count} iterations of what is drawn, each path from its own mean there",
    }[told["basis"]]
    notes = [f"components of {of}"]
    if told["basis"] == "tail":
        notes.append(
            f"there they move by {_labels.number(told['spread'], digits=2)} of their norm"
            + (", which is rounding" if told["rests"] else "")
        )
    return notes


def _tail_range(found: xr.Dataset, points: np.ndarray) -> np.ndarray | None:
    """Return the window (dims, 2) around the tails, in the basis that is of them; else None."""
    if found.attrs.get("basis") != "tail":
        return None
    tails = points[:, found["in_fit"].values].reshape(-1, points.shape[-1])
    tails = tails[np.isfinite(tails).all(-1)]
    if not len(tails) or not np.ptp(tails, axis=0).all():
        return None
    margin = 0.15 * np.ptp(tails, axis=0)
    return np.stack([tails.min(0) - margin, tails.max(0) + margin], axis=1)


def _finish(
    made: _theme.Figure,
    titles: Sequence[str],
    dims: int,
    *,
    tail: np.ndarray | None,
    shown: str,
) -> None:
    """Set axis titles and ranges."""
    ranges = [None] * dims if tail is None else tail.tolist()
    axes: dict[str, Any]
    if dims == 2:
        made.update_layout(
            xaxis={
                "title": {"text": titles[0], "standoff": 4},
                "range": ranges[0],
                "exponentformat": "power",
            },
            yaxis={"title": titles[1], "range": ranges[1], "exponentformat": "power"},
        )
    else:
        axes = {
            f"{axis}axis": {"title": {"text": title}, "range": window, "exponentformat": "power"}
            for axis, title, window in zip("xyz", titles, ranges, strict=True)
        }
        made.update_layout(
            scene={**axes, "aspectmode": "cube", "camera": _CAMERA},
            scene_uirevision="camera",  # how a scene is turned holds for all
            margin={"l": 56, "b": 44},
        )
    _paths.legend_above(made)
    # A zoom holds for one picture, whatever the cursor and the theme.
    made.update_layout(uirevision=shown)
