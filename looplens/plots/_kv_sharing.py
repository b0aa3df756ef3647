"""What sharing keys and values between iterations loses, and what memory it saves.

Draws what :func:`looplens.dynamics.kv_sharing` has measured on a live model.
"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from looplens.plots import _labels, _theme


def kv_sharing_figure(
    results: xr.Dataset, *, subtitle: str = "", theme: str = "light"
) -> _theme.Figure:
    """Draw the fidelity of each way to share keys and values.

    Parameters
    ----------
    results : Dataset
        Of :func:`looplens.dynamics.kv_sharing`: ``kl`` (strategy, token), ``agreement``, ``memory``
        and ``accuracy`` (strategy).
    subtitle, theme : str
        Words and template.

    Returns
    -------
    Figure
        Left, the divergence of every token from the prediction with all entries; right, the share
        of unchanged answers and of right ones.

    References
    ----------
    Zhu et al., arXiv 2510.25741, table 14.
    """
    colours = _theme.palette(theme)
    names = [
        f"{name}<br>{_labels.percent(share)}"
        for name, share in zip(results["strategy"].values, results["memory"].values, strict=True)
    ]
    made = _theme.figure(
        title="Keys and values shared between iterations",
        subtitle=subtitle,
        theme=theme,
        height=440,
    )
    make_subplots(
        rows=1,
        cols=2,
        horizontal_spacing=0.12,
        subplot_titles=("divergence from the full cache (nats)", "answers"),
        figure=made,
    )
    made.update_annotations(font={"size": 13})
    kl = results["kl"].values
    for place in range(1, len(names)):
        values = kl[place]
        made.add_trace(
            go.Box(
                y=np.where(values > 0, values, np.nan),
                name=names[place],
                boxpoints="all",
                jitter=0.4,
                pointpos=0,
                marker={"size": 4, "color": colours.categories[0], "opacity": 0.6},
                line={"color": colours.text, "width": 1.2},
                fillcolor="rgba(0,0,0,0)",
                showlegend=False,
            ),
            row=1,
            col=1,
        )
    shares = [("agreement", "same as the full cache", "")]
    shares += [("accuracy", "right", "/")] if np.isfinite(results["accuracy"].values).any() else []
    for number, (name, title, pattern) in enumerate(shares):
        made.add_trace(
            go.Bar(
                x=names,
                y=results[name].values,
                name=title,
                marker={"color": colours.categories[number], "pattern": {"shape": pattern}},
                hovertemplate=f"%{{x}}<br>{title} %{{y:.1%}}<extra></extra>",
            ),
            row=1,
            col=2,
        )
    made.update_xaxes(title="what is kept, and its share of the memory", tickangle=0)
    positive = kl[np.isfinite(kl) & (kl > 0)]
    if not len(positive):
        made.update_yaxes(range=[0, 1], row=1, col=1)
        made.add_annotation(
            text="nothing differs" if (kl == 0).all() else "nothing is finite",
            x=0.5,
            y=0.5,
            showarrow=False,
            xref="x domain",
            yref="y domain",
        )
    else:
        low, high = np.log10(positive.min()), np.log10(positive.max())
        exponents, powers = _labels.decade_ticks(np.floor(low), np.ceil(high))
        made.update_yaxes(
            type="log",
            range=[low - 0.3, high + 0.3],
            tickvals=[10.0**exponent for exponent in exponents],
            ticktext=powers,
            row=1,
            col=1,
        )
    made.update_yaxes(range=[0, 1.03], tickformat=".0%", row=1, col=2)
    made.update_layout(
        barmode="group",
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.1, "yanchor": "bottom"},
        margin={"t": 110},
    )
    return made
