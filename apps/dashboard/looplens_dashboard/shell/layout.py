"""The page that never changes: navigation, and the places that the bar and the panels are put into.

It says what stands where and which stores there are; what happens is in ``wiring.py`` and in the
scripts of ``assets/``.
"""

from __future__ import annotations

import dash_mantine_components as dmc
from dash import dcc, html
from dash.development.base_component import Component

from looplens_dashboard.controls import segmented
from looplens_dashboard.panels.card import EXPORTS
from looplens_dashboard.panels.drawing import FONT
from looplens_dashboard.panels.panel import Page, Panel

KEYS = (
    ("← →", "one iteration back or on; with Shift ten"),
    ("Home End", "first and last iteration"),
    ("Space", "play and pause"),
    ("[ ]", "previous and next token"),
    ("n N", "next and previous token that the filter matches"),
    ("1 … 8", "the pages"),
    ("?", "this list"),
    ("Esc", "close"),
)
"""The keys and what they do, as the page lists them."""


def page(pages: tuple[Page, ...], bar: tuple[Panel, ...]) -> Component:
    """Return the layout of the app."""
    return dmc.MantineProvider(
        id="provider",
        forceColorScheme="light",
        theme={"primaryColor": "blue", "fontFamily": FONT},
        children=html.Div(
            [
                *_stores(pages, bar),
                html.A("Skip to the panels", href="#content", className="skip"),
                html.Header([_title_bar(pages), html.Div(id="bar")], className="top"),
                html.Main(
                    [
                        dmc.Alert(
                            id="note",
                            title="Not everything that was asked for can be shown",
                            color="yellow",
                            variant="light",
                            withCloseButton=True,
                            closeButtonLabel="Close this note",
                            hide=True,
                            className="note",
                        ),
                        html.Div("Opening…", id="content", className="panels", tabIndex=-1),
                    ]
                ),
                _help(),
                _export_menu(),
                html.Div(id="said", className="said", role="status", **{"aria-live": "polite"}),
            ],
            className="page",
        ),
    )


def _stores(pages: tuple[Page, ...], bar: tuple[Panel, ...]) -> list[Component]:
    """Return what the browser holds beside the panels.

    ``selection`` is the one selection of all panels, without the iteration, which is in
    ``iteration`` and moves without the server; ``panel-keys`` says which parts of it each panel is
    drawn from; ``picked`` is what was clicked outside of a control; ``address`` the address that
    the app was opened with, or went back to; ``defaults`` what it leaves out; ``place`` run and
    page.
    """
    panels = (*bar, *(panel for page in pages for panel in page.panels))
    keys = {panel.name: list(panel.depends_on) for panel in panels}
    return [
        dcc.Store(id="panel-keys", data=keys),
        dcc.Store(id="address"),
        dcc.Store(id="picked"),
        dcc.Store(id="selection"),
        dcc.Store(id="iteration"),
        dcc.Store(id="defaults"),
        dcc.Store(id="place"),
        dcc.Store(id="bar-place"),
    ]


def _title_bar(pages: tuple[Page, ...]) -> Component:
    links = [
        html.A(
            page.title,
            href=f"/{page.name}",
            id=f"to-{page.name}",
            **{"data-page": page.name, "data-of-run": "yes" if page.of_run else "no"},
        )
        for page in pages
    ]
    return html.Div(
        [
            html.Span("looplens", className="brand"),
            html.Nav(links, **{"aria-label": "Pages"}),
            html.Div(
                [
                    _button("copy-link", "Copy link", "Copy the link that restores this view"),
                    html.A(
                        "Save page",
                        id="save-page",
                        className="button",
                        href="#",
                        download="",
                        title="Save this page as one HTML file that needs no server",
                    ),
                    _button("show-keys", "?", "Keys"),
                    segmented("theme", "Theme", [("light", "Light"), ("dark", "Dark")]),
                ],
                className="tools",
            ),
        ],
        className="title-bar",
    )


def _button(name: str, text: str, label: str) -> Component:
    return html.Button(text, id=name, className="button", title=label, **{"aria-label": label})


def _help() -> Component:
    rows = [html.Div([html.Dt(html.Kbd(key)), html.Dd(use)]) for key, use in KEYS]
    return html.Dialog(
        [
            html.H2("Keys", id="keys-title"),
            html.Dl(rows),
            html.Button("Close", id="close-keys", className="button"),
        ],
        id="keys",
        **{"aria-labelledby": "keys-title"},
    )


def _export_menu() -> Component:
    """Return the one menu of all panels; the browser puts it beside the button that opened it."""
    return html.Div(
        [
            html.Button(words, className="menu-item", role="menuitem", **{"data-as": kind})
            for kind, words in EXPORTS
        ],
        id="export-menu",
        role="menu",
        hidden=True,
        **{"aria-label": "Export"},
    )
