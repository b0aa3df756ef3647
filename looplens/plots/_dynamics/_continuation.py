"""The bifurcation diagram of a token: its fixed point as a gain on the loop changes, and runs.

The numbers are those of ``dynamics/continuation``.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from looplens.plots import _labels, _theme
from looplens.plots._dynamics import _stored

_MOST_LATE = 48  # late states of a run that are drawn: an orbit of a period shows with fewer
_BAND = (0.0, 2.0)  # moduli of eigenvalues that are drawn at most
_KINDS: dict[str, tuple[str, str]] = {
    "fold": ("fold", "triangle-left"),
    "branch_point": ("branch point", "x"),
    "flip": ("flip: period doubles", "diamond-tall"),
    "neimark_sacker": ("Neimark-Sacker: a turn is born", "star"),
}


def continuation(run: Any, token: int | None = None, *, theme: str = "light") -> _theme.Figure:
    """Show how the fixed point of a token changes with a gain, and what the loop does there.

    Parameters
    ----------
    run : looplens.Run
        The opened run, with a result ``dynamics/continuation``.
    token : int, optional
        Token number in the run; by default the first one of the result.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Above, the branch of fixed points, solid where it is stable and dashed where it is not, its
        bifurcations, and late states of runs with the regime that the detector sees in them. Below,
        the moduli of the leading eigenvalues of the token's own block.

    Raises
    ------
    InputError
        If the run has no such token.
    AnalysisError
        If the run holds no such result.
    """
    result, token = _stored.stored(run, "continuation", token)
    restart = f"restart {_labels.number(result.attrs['restart'])}"
    return continuation_figure(
        result, token, subtitle=_labels.of_prompt(run, token, restart), theme=theme
    )


def continuation_figure(
    result: xr.Dataset, token: int | None = None, *, subtitle: str = "", theme: str = "light"
) -> _theme.Figure:
    """Draw one token of a result.

    Parameters
    ----------
    result : Dataset
        What :func:`looplens.dynamics.continuation` returns.
    token : int, optional
        Token number; by default the first one.
    subtitle, theme : str
        Words and template.
    """
    colours = _theme.palette(theme)
    one = _stored.of_token(result, token)
    lines = [line for line in (subtitle, _knob(result.attrs), _onset(one)) if line]
    made = _theme.figure(
        title="Fixed point of a token as a gain changes",
        subtitle="<br>".join(lines),
        theme=theme,
        height=680,
    )
    made.set_subplots(
        rows=2, cols=1, shared_xaxes=True, row_heights=[0.64, 0.36], vertical_spacing=0.07
    )
    _add_runs(made, one, colours)
    _add_branch(made, one, colours)
    _add_bifurcations(made, one, colours)
    _add_eigenvalues(made, one, colours)
    low, high = result.attrs["gains"]
    edge = 0.02 * (high - low)
    made.add_vline(
        x=result.attrs["own_gain"], line={"color": colours.axis, "width": 1, "dash": "dot"}
    )
    made.add_annotation(
        x=result.attrs["own_gain"],
        y=1,
        yref="paper",
        yanchor="bottom",
        showarrow=False,
        text="the model",
        font={"size": 12, "color": colours.muted},
    )
    made.update_xaxes(range=[low - edge, high + edge])
    made.update_xaxes(title=f"gain on {_part(result.attrs)}", row=2)
    made.update_yaxes(title="state along one direction", row=1)
    made.update_layout(
        legend={"orientation": "h", "x": 0, "y": -0.13, "yanchor": "top"},
        margin={"t": 68 + 17 * len(lines), "b": 120},
    )
    return made


def _part(attrs: dict[str, Any]) -> str:
    words = {"state": "the state", "injection": "the injection"}
    text = words.get(attrs["knob_part"], _labels.escape(str(attrs["knob_part"])))
    if attrs["knob_heads"] is not None:
        text += f", head {_labels.escape(str(attrs['knob_heads']))}"
    if attrs["knob_tokens"] is not None:
        text += f", tokens {_labels.escape(str(attrs['knob_tokens']))}"
    return text


def _knob(attrs: dict[str, Any]) -> str:
    others = {
        "sequence": "all tokens move together",
        "token": "the other tokens are held at their recorded states",
    }
    return f"{_part(attrs)} × gain in every iteration · {others[attrs['scope']]}"


def _onset(one: xr.Dataset) -> str:
    """Say where the token itself, and where anything that it sees, stops being stable."""
    if str(one["status"].item()) != "followed":
        return f"no branch: {one['status'].item()}"
    is_stable = one["outside"].values[int(one["start"])] == 0
    said = [] if is_stable else ["unstable in the model"]
    for side in ("below", "above"):
        first, own = float(one[f"first_{side}"]), float(one[f"onset_{side}"])
        if np.isfinite(first):
            who = int(one[f"first_{side}_token"])
            whose = "" if who in (-1, int(one["token"])) else f" of token {who}"
            said.append(f"stable up to a {_kind(one, f'first_{side}')}{whose}")
        if np.isfinite(own) and own != first:
            how = "by itself up to" if is_stable else "becomes stable at"
            said.append(f"{how} a {_kind(one, f'onset_{side}')}")
    return " · ".join(said) or "no loss of stability was found"


def _kind(one: xr.Dataset, name: str) -> str:
    kind = _KINDS[str(one[f"{name}_kind"].item())][0].partition(":")[0]
    return f"{kind} at gain {_labels.number(float(one[name]), digits=4)}"


def _add_runs(made: _theme.Figure, one: xr.Dataset, colours: _theme.Palette) -> None:
    if "run_gain" not in one:
        return
    gains, places = one["run_gain"].values, one["run_place"].values[:, -_MOST_LATE:]
    regimes, periods = one["run_regime"].values, one["run_period"].values
    for name, style in colours.regimes.items():
        chosen = np.flatnonzero((regimes == name) & np.isfinite(places).all(1))
        if not chosen.size:
            continue
        late = 1 if name == "fixed_point" else places.shape[1]
        period = [
            f"period {_labels.number(p)}" if np.isfinite(p) else style.label
            for p in periods[chosen]
        ]
        made.add_trace(
            go.Scattergl(
                x=np.repeat(gains[chosen], late),
                y=places[chosen, -late:].ravel(),
                text=np.repeat(period, late),
                mode="markers",
                name=f"run: {style.label}",
                marker={
                    "symbol": style.symbol,
                    "size": 9 if late == 1 else 5,
                    "color": style.colour,
                    "opacity": 0.75,
                    "line": {"width": 1, "color": style.colour},
                },
                hovertemplate="gain %{x:.3f}<br>%{y:.4g}<br>%{text}<extra></extra>",
            ),
            row=1,
            col=1,
        )


def _pieces(one: xr.Dataset) -> list[tuple[slice, bool]]:
    """Cut the branch where its stability changes; pieces share the point where they meet."""
    outside = one["outside"].values[np.isfinite(one["gain"].values)]
    if not outside.size:
        return []
    stable = outside == 0
    cuts = [0, *np.flatnonzero(stable[1:] != stable[:-1]) + 1, len(stable)]
    return [(slice(a, min(b + 1, len(stable))), bool(stable[a])) for a, b in pairwise(cuts)]


def _add_branch(made: _theme.Figure, one: xr.Dataset, colours: _theme.Palette) -> None:
    seen: set[bool] = set()
    for part, stable in _pieces(one):
        made.add_trace(
            go.Scatter(
                x=one["gain"].values[part],
                y=one["place"].values[part],
                customdata=one["spectral_radius"].values[part],
                mode="lines",
                name="fixed point, stable" if stable else "fixed point, unstable",
                legendgroup=str(stable),
                showlegend=stable not in seen,
                line={"color": colours.text, "width": 2.5, "dash": "solid" if stable else "dash"},
                hovertemplate="gain %{x:.4f}<br>%{y:.4g}<br>spectral radius %{customdata:.4f}"
                "<extra></extra>",
            ),
            row=1,
            col=1,
        )
        seen.add(stable)


def _add_bifurcations(made: _theme.Figure, one: xr.Dataset, colours: _theme.Palette) -> None:
    """Mark the token's own bifurcations, and the folds of others at which its branch turns."""
    kinds = one["bifurcation_kind"].values
    mine = one["bifurcation_token"].values == int(one["token"])
    if not (one["bifurcation_token"].values >= 0).any():
        mine[:] = True  # not known: eigenvalues of the whole sequence
    for kind, (label, symbol) in _KINDS.items():
        for own in (True, False):
            chosen = np.flatnonzero((kinds == kind) & (mine == own))
            if not chosen.size or (not own and kind != "fold"):
                continue
            gain, imaginary = one["bifurcation_gain"].values, one["bifurcation_imag"].values
            words = []
            for number in chosen:
                who = int(one["bifurcation_token"].values[number])
                real, imag = one["bifurcation_real"].values[number], abs(imaginary[number])
                turn = one["bifurcation_period"].values[number]
                value = f"{real:.3f} ± {imag:.3f}i" if imag else f"{real:.3f}"
                words.append(
                    f"{label}, gain {gain[number]:.4f}<br>eigenvalue {value}"
                    + (f"<br>period {turn:.3g}" if np.isfinite(turn) else "")
                    + (f"<br>token {who}" if who >= 0 else "")
                )
            made.add_trace(
                go.Scatter(
                    x=gain[chosen],
                    y=one["bifurcation_place"].values[chosen],
                    text=words,
                    mode="markers",
                    name=label if own else "turned by the fold of another token",
                    marker={
                        "symbol": symbol if own else f"{symbol}-open",
                        "size": 13 if own else 11,
                        "color": colours.categories[3],
                        "line": {"width": 1.5, "color": colours.text},
                    },
                    hovertemplate="%{text}<extra></extra>",
                ),
                row=1,
                col=1,
            )


def _add_eigenvalues(made: _theme.Figure, one: xr.Dataset, colours: _theme.Palette) -> None:
    known = np.isfinite(one["gain"].values)
    gain = one["gain"].values[known]
    values = one["eigenvalue_real"].values[known] + 1j * one["eigenvalue_imag"].values[known]
    moduli, angles = np.abs(values), np.degrees(np.abs(np.angle(values)))
    for number in reversed(range(moduli.shape[1])):
        first = number == 0
        made.add_trace(
            go.Scatter(
                x=gain,
                y=np.where(moduli[:, number] <= _BAND[1], moduli[:, number], np.nan),
                customdata=angles[:, number],
                mode="lines+markers" if first else "lines",
                name="largest modulus" if first else "other eigenvalues",
                legendgroup="first" if first else "others",
                showlegend=number < 2,
                marker={"size": 4, "color": colours.categories[0]},
                line={
                    "color": colours.categories[0] if first else colours.muted,
                    "width": 2 if first else 1,
                    "dash": "solid" if first else "dot",
                },
                hovertemplate="gain %{x:.4f}<br>modulus %{y:.4f}<br>angle %{customdata:.1f}°"
                "<extra></extra>",
            ),
            row=2,
            col=1,
        )
    made.add_hline(y=1, line={"color": colours.accent, "width": 1, "dash": "dash"}, row=2, col=1)
    largest = float(np.nanmax(moduli, initial=0.0)) if moduli.size else 0.0
    made.update_yaxes(
        title="|eigenvalue|", range=[_BAND[0], min(_BAND[1], max(1.15, 1.05 * largest))], row=2
    )
