"""The page Dynamics."""

from __future__ import annotations

from looplens_dashboard.panels.call import figure_call
from looplens_dashboard.panels.panel import Page, Panel

SPECTRA = Panel(
    name="spectra",
    title="Eigenvalues",
    answers="What does the linear map at the fixed point predict?",
    keys=("token",),
    call=lambda _view, selection: figure_call("spectra", token=selection.token),
)

PAGE = Page(name="dynamics", title="Dynamics", panels=(SPECTRA,))
