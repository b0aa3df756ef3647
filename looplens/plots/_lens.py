"""What a lens shows inside the loop: the best token at every layer and iteration, and ranks.

The numbers are those of :func:`looplens.lens`, which needs the live model: it can store them in the
run, where the functions that take a run find them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from looplens import analysis
from looplens.errors import AnalysisError, InputError
from looplens.plots import _labels, _select, _theme

_TITLES = {"logit": "logit lens", "coda": "coda lens"}
_MOST_TEXTS = 32  # iterations beside each other with their token written into each
_WIDTH, _LETTER = 520, 8  # of a map and of a letter, pixels, roughly
_MOST_JOINED = 100  # points of several layers, above which only the points are drawn
_DASHES = ("solid", "dash", "dot", "dashdot")


def lens(run: Any, token: int | None = None, *, theme: str = "light") -> _theme.Figure:
    """Show the token that each lens finds most probable, after every layer of every iteration.

    Parameters
    ----------
    run : looplens.Run
        A run in which :func:`looplens.lens` stored its result.
    token : int or None
        Global token number; None for the last one that was read out.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        One map a lens, layer by iteration; colour is the probability of the best token. Where there
        are many iterations, a token that stays the best is written once.

    Raises
    ------
    InputError
        If the token does not exist.
    AnalysisError
        If no lens was stored, or this token was not read out.

    References
    ----------
    Lu et al. 2025, arXiv 2507.02199, as summarised in notes (paper text not read).
    """
    results, token = _stored(run, token)
    return lens_figure(results, token, subtitle=_subtitle(run, results, token), theme=theme)


def lens_ranks(run: Any, token: int | None = None, *, theme: str = "light") -> _theme.Figure:
    """Show the rank of the target, of the final prediction and of other tokens, through all loops.

    Parameters
    ----------
    run : looplens.Run
        A run in which :func:`looplens.lens` stored its result.
    token : int or None
        Global token number; None for the last one that was read out.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        One panel a lens; rank 1, the best, is at the top.

    Raises
    ------
    InputError
        If the token does not exist.
    AnalysisError
        If no lens was stored, or this token was not read out.
    """
    results, token = _stored(run, token)
    return lens_ranks_figure(results, token, subtitle=_subtitle(run, results, token), theme=theme)


def _stored(run: Any, token: int | None) -> tuple[xr.Dataset, int]:
    results = analysis.get(run, "lens")
    read = results["token"].values
    token = int(read[-1]) if token is None else _select.token(run, token)
    if token not in read:
        prompts = _select.listed(results.attrs["prompts"])
        raise AnalysisError(
            f"No lens was held before token {token} (prompts with lenses: {prompts}). Call "
            "looplens.lens(model, run, prompt=..., store=True) with its prompt."
        )
    return results, token


def _subtitle(run: Any, results: xr.Dataset, token: int) -> str:
    return _labels.of_prompt(run, token, f"restart {results.attrs['restart']}")


def lens_figure(
    results: xr.Dataset, token: int | None = None, *, subtitle: str = "", theme: str = "light"
) -> _theme.Figure:
    """Draw the best token at every place, from a result of :func:`looplens.lens`.

    Parameters
    ----------
    results : Dataset
        ``topk_text`` and ``topk_logprobs`` (lens, token, layer, iteration, rank).
    token : int or None
        Its global number; None for the last.
    subtitle, theme : str
        Words and template.
    """
    one = _of_token(results, token)
    names, layers = one["lens"].values.tolist(), one["layer"].values
    iterations = one["iteration"].values
    colours = _theme.palette(theme)
    made, height = _panels(names, "What a lens shows", subtitle, theme, 60 + 34 * len(layers))
    dims = ("layer", "iteration", "rank")
    for row, name in enumerate(names, start=1):
        part = one.sel(lens=name)
        texts = part["topk_text"].transpose(*dims).values
        labels = np.array(
            [_labels.escape(_labels.visible_text(str(text))) for text in texts.ravel()],
            dtype=object,
        ).reshape(texts.shape)
        probability = np.exp(part["topk_logprobs"].transpose(*dims).values)
        made.add_trace(
            go.Heatmap(
                z=probability[..., 0],
                x=iterations,
                y=np.arange(len(layers)),
                text=_written(labels[..., 0]),
                customdata=_best(labels, probability),
                texttemplate="%{text}",
                zmin=0,
                zmax=1,
                colorscale=[list(stop) for stop in colours.from_paper],
                showscale=row == 1,
                colorbar={"title": {"text": "probability"}, "tickformat": ".0%"},
                hovertemplate=f"{_TITLES.get(name, name)}, iteration %{{x}}, layer %{{y}}<br>"
                "%{customdata}<extra></extra>",
            ),
            row=row,
            col=1,
        )
    made.update_yaxes(
        title="layer",
        tickvals=np.arange(len(layers)),
        ticktext=[str(layer) for layer in layers],
        range=[len(layers) - 0.5, -0.5],
        showgrid=False,
    )
    made.update_xaxes(showgrid=False)
    made.update_layout(height=height, plot_bgcolor=colours.missing)
    return made


def _written(labels: np.ndarray) -> np.ndarray:
    """Keep the labels (layer, iteration) that fit beside each other.

    Of equal ones in a row, the one in the middle, where there are too many for all.
    """
    count = labels.shape[1]
    if count <= _MOST_TEXTS:
        return labels
    kept = np.full(labels.shape, "", dtype=object)
    for row, line in zip(kept, labels, strict=True):
        ends = [*np.flatnonzero(line[1:] != line[:-1]) + 1, count]
        for start, end in pairwise([0, *ends]):
            label = line[start]
            if (end - start) * _WIDTH / count >= _LETTER * (len(label) + 1):
                row[(start + end - 1) // 2] = label
    return kept


def _best(labels: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Write the most probable tokens of every place for the hover text."""
    found = np.empty(labels.shape[:-1], dtype=object)
    for place in np.ndindex(found.shape):
        pairs = zip(labels[place], probability[place], strict=True)
        found[place] = "<br>".join(f"{text}  {share:.3f}" for text, share in pairs)
    return found


def lens_ranks_figure(
    results: xr.Dataset, token: int | None = None, *, subtitle: str = "", theme: str = "light"
) -> _theme.Figure:
    """Draw the ranks of the followed tokens, from a result of :func:`looplens.lens`.

    Parameters
    ----------
    results : Dataset
        ``followed_rank`` (lens, followed, token, layer, iteration); -1 is not drawn.
    token : int or None
        Its global number; None for the last.
    subtitle, theme : str
        Words and template.
    """
    one = _of_token(results, token)
    names, layers = one["lens"].values.tolist(), one["layer"].values
    iterations = one["iteration"].values
    colours = _theme.palette(theme)
    made, height = _panels(names, "Rank of followed tokens", subtitle, theme, 230)
    x = (iterations[:, None] + np.arange(len(layers)) / len(layers)).ravel()
    mode = "markers" if len(layers) > 1 and x.size > _MOST_JOINED else "lines+markers"
    place = [f"iteration {t}, after layer {layer}" for t in iterations for layer in layers]
    for row, name in enumerate(names, start=1):
        ranks = one["followed_rank"].sel(lens=name).transpose("followed", "iteration", "layer")
        for number, followed in enumerate(one["followed"].values):
            values = ranks.values[number].ravel().astype(np.float64) + 1
            if not (values > 0).any():
                continue
            made.add_trace(
                go.Scatter(
                    x=x,
                    y=np.where(values > 0, values, np.nan),
                    text=place,
                    name=_labels.escape(str(followed)),
                    legendgroup=str(followed),
                    showlegend=row == 1,
                    mode=mode,
                    line={
                        "color": colours.categories[number % len(colours.categories)],
                        "dash": _DASHES[number % len(_DASHES)],
                        "width": 1.5,
                    },
                    marker={
                        "symbol": _theme.TOKEN_SYMBOLS[number % len(_theme.TOKEN_SYMBOLS)],
                        "size": 7 - 2 * (number % 2),  # so that equal ranks show both
                    },
                    hovertemplate="%{text}<br>rank %{y}<extra></extra>",
                ),
                row=row,
                col=1,
            )
    worst = max(float(one["followed_rank"].max()), 0.0) + 1
    ticks = [n * 10**power for power in range(len(str(int(worst)))) for n in (1, 2, 5)]
    made.update_yaxes(
        title="rank",
        type="log",
        range=[np.log10(worst) + 0.1, -0.1],
        tickvals=ticks,
        ticktext=[str(tick) for tick in ticks],
    )
    made.update_layout(
        height=height,
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.0, "yanchor": "bottom"},
    )
    return made


def _of_token(results: xr.Dataset, token: int | None) -> xr.Dataset:
    read = results["token"].values
    token = int(read[-1]) if token is None else token
    if token not in read:
        raise InputError(
            f"token {token} is not in this result, which holds tokens {_select.listed(read)}."
        )
    return results.sel(token=token)


def _panels(
    names: list[str], title: str, subtitle: str, theme: str, pixels: int
) -> tuple[_theme.Figure, int]:
    """Start a figure with a panel a lens, one below the other."""
    height = 150 + (pixels + 40) * len(names)
    made = _theme.figure(title=title, subtitle=subtitle, theme=theme, height=height)
    make_subplots(
        rows=len(names),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=50 / height,
        subplot_titles=[_TITLES.get(name, name) for name in names],
        figure=made,
    )
    made.update_annotations(font={"size": 13}, x=0, xanchor="left")
    made.update_xaxes(title="iteration", row=len(names))
    made.update_layout(margin={"t": 110})
    return made, height
