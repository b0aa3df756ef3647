"""One shared variable of two runs as differences, a curve, or an agreement of words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from looplens.analysis.comparing.bootstrap import PairedBootstrap
from looplens.analysis.comparing.comparison import Agreement, Curve, Difference
from looplens.analysis.comparing.variables import Shared
from looplens.analysis.grouped import levels_of


def differences_of(
    analysis: str,
    shared: Shared,
    bootstrap: PairedBootstrap,
    inside: NDArray[np.bool_] | None = None,
) -> list[Difference]:
    """Return the mean difference of a variable over its tokens.

    Of a variable of numbers also the difference of the share that is known, unless all is; of a
    curve the last iteration alone; of words the share of each.

    Parameters
    ----------
    analysis : str
        Where the variable is from.
    shared : Shared
        The variable.
    bootstrap : PairedBootstrap
        Makes the intervals.
    inside : ndarray of bool, shape (token,), optional
        Only these tokens.
    """
    name, title, a, b = shared.name, shared.title, shared.a, shared.b
    if shared.iteration is not None:
        a, b = a[..., -1], b[..., -1]
        name, title = f"{name}.last", f"{title}, iteration {shared.iteration[-1]}"
    if inside is not None:
        a, b = a[:, inside], b[:, inside]
    prompt = shared.prompt if inside is None else shared.prompt[inside]

    def one(a: NDArray[np.float64], b: NDArray[np.float64], name: str, title: str, units: str):  # type: ignore[no-untyped-def]
        return difference_of(analysis, name, title, units, a, b, prompt, bootstrap)

    if a.dtype.kind in "OU":
        levels = levels_of(np.concatenate([a.ravel(), b.ravel()])) or ()
        rows = [
            one(
                (a == level).mean(0),
                (b == level).mean(0),
                f"{name}.{_key(level)}",
                f"{title}: share of {level.replace('_', ' ')}",
                "",
            )
            for level in levels
        ]
        return [row for row in rows if row is not None]
    rows = [one(over_restarts(a), over_restarts(b), name, title, shared.units)]
    known_a, known_b = np.isfinite(a).mean(0), np.isfinite(b).mean(0)
    if (known_a != known_b).any():
        rows.append(one(known_a, known_b, f"{name}.known", f"share that is known: {title}", ""))
    return [row for row in rows if row is not None]


def difference_of(
    analysis: str,
    name: str,
    title: str,
    units: str,
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    prompt: NDArray[np.int_],
    bootstrap: PairedBootstrap,
) -> Difference | None:
    """Return the difference of values per token; None where none is known in both."""
    both = np.isfinite(a) & np.isfinite(b)
    if not both.any():
        return None
    a, b, prompt = a[both], b[both], prompt[both]
    total = np.bincount(prompt, weights=b - a, minlength=bootstrap.prompts)
    known = np.bincount(prompt, minlength=bootstrap.prompts).astype(np.float64)
    low, high = bootstrap.interval(total, known)
    return Difference(
        analysis=analysis,
        name=name,
        title=title,
        units=units,
        a=float(a.mean()),
        b=float(b.mean()),
        difference=float((b - a).mean()),
        low=float(low),
        high=float(high),
        spread=float(np.concatenate([a, b]).std()),
        tokens=int(both.sum()),
    )


def curve_of(analysis: str, shared: Shared, bootstrap: PairedBootstrap) -> Curve | None:
    """Return the means of a variable over tokens by iteration; None where nothing is known."""
    if shared.iteration is None or shared.a.dtype.kind in "OU":
        return None
    a, b = over_restarts(shared.a), over_restarts(shared.b)
    both = np.isfinite(a) & np.isfinite(b)
    if not both.any():
        return None
    a, b = np.where(both, a, 0.0), np.where(both, b, 0.0)
    count = both.sum(0)
    low, high = bootstrap.interval(
        _by_prompt(b - a, shared.prompt, bootstrap.prompts),
        _by_prompt(both, shared.prompt, bootstrap.prompts),
    )
    mean_a, mean_b = (
        np.divide(values.sum(0), count, out=np.full(count.shape, np.nan), where=count > 0)
        for values in (a, b)
    )
    return Curve(
        analysis=analysis,
        name=shared.name,
        title=shared.title,
        units=shared.units,
        iteration=shared.iteration,
        a=mean_a,
        b=mean_b,
        difference=mean_b - mean_a,
        low=low,
        high=high,
    )


def agreement_of(
    analysis: str, shared: Shared, bootstrap: PairedBootstrap, restarts_paired: bool
) -> Agreement | None:
    """Return the table of words of one run against words of the other; None for too many words.

    Parameters
    ----------
    analysis, shared, bootstrap
        As in `differences_of`.
    restarts_paired : bool
        Restart i of one run started like restart i of the other, and they are compared. Otherwise
        every restart of one is compared with every restart of the other.
    """
    levels = levels_of(np.concatenate([shared.a.ravel(), shared.b.ravel()]))
    if levels is None:
        return None
    a, b = (
        np.stack([values == level for level in levels], -1).astype(np.float64)
        for values in (shared.a, shared.b)
    )
    if restarts_paired:
        per_token = np.einsum("rni,rnj->nij", a, b) / len(a)
    else:
        per_token = np.einsum("ni,nj->nij", a.mean(0), b.mean(0))
    same = np.trace(per_token, axis1=-2, axis2=-1)
    return _agreement(analysis, shared, same, bootstrap, levels, per_token.mean(0))


def same_best_token(
    analysis: str, shared: Shared, bootstrap: PairedBootstrap, restarts_paired: bool
) -> tuple[Curve, Agreement]:
    """Return how often both runs predict the same token: by iteration, and at the last one."""
    if restarts_paired:
        same = _equal(shared.a, shared.b).mean(0)
    else:
        pairs = [_equal(one, other) for one in shared.a for other in shared.b]
        same = np.mean(pairs, axis=0)
    known = np.isfinite(same)
    total = _by_prompt(np.where(known, same, 0.0), shared.prompt, bootstrap.prompts)
    count = _by_prompt(known, shared.prompt, bootstrap.prompts)
    low, high = bootstrap.interval(total, count)
    inside = count.sum(0)
    share = np.divide(total.sum(0), inside, out=np.full(inside.shape, np.nan), where=inside > 0)
    assert shared.iteration is not None
    curve = Curve(
        analysis=analysis,
        name="same_best_token",
        title="share of tokens whose best token is the same in both runs",
        iteration=shared.iteration,
        a=np.full(share.shape, np.nan),
        b=np.full(share.shape, np.nan),
        difference=share,
        low=low,
        high=high,
    )
    return curve, _agreement(analysis, shared, same[:, -1], bootstrap, (), np.zeros((0, 0)))


def _equal(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.where(np.isfinite(a) & np.isfinite(b), a == b, np.nan)


def _agreement(
    analysis: str,
    shared: Shared,
    same: NDArray[np.float64],
    bootstrap: PairedBootstrap,
    levels: tuple[str, ...],
    table: NDArray[np.float64],
) -> Agreement:
    known = np.isfinite(same)
    low, high = bootstrap.interval(
        np.bincount(shared.prompt, weights=np.where(known, same, 0.0), minlength=bootstrap.prompts),
        np.bincount(shared.prompt, weights=known, minlength=bootstrap.prompts),
    )
    return Agreement(
        analysis=analysis,
        name=shared.name,
        title=shared.title,
        levels=levels,
        table=table,
        share=float(same[known].mean()) if known.any() else float("nan"),
        low=float(low),
        high=float(high),
    )


def over_restarts(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the mean over the first axis of what is finite; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(0)
    total = np.where(known, values, 0.0).sum(0, dtype=np.float64)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def _by_prompt(
    values: NDArray[np.generic], prompt: NDArray[np.int_], prompts: int
) -> NDArray[np.float64]:
    """Sum over the tokens of each prompt; shape (prompt, ...)."""
    total = np.zeros((prompts, *values.shape[1:]))
    np.add.at(total, prompt, values)
    return total


def _key(word: str) -> str:
    return "_".join(word.split()) or "none"
