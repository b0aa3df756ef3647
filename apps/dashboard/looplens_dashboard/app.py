"""Makes the app: the shell around the pages, over the runs of a workspace.

Nothing is loaded from elsewhere and nothing is sent anywhere: all scripts are served from here,
and a content security policy tells the browser to refuse any other address.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from dash import Dash

from looplens.run import Run
from looplens_dashboard import exporting, pages
from looplens_dashboard.live import LiveSession
from looplens_dashboard.serving import secure
from looplens_dashboard.shell import layout, wiring
from looplens_dashboard.view import Views
from looplens_dashboard.workspace import Workspace

# A picture that needs no request: browsers ask for one again whenever the address changes.
_ICON = "<link rel='icon' href='data:,'>"

Runs = str | os.PathLike[str] | Run | Iterable[str | os.PathLike[str] | Run]


def create_app(runs: Runs, *, models: Iterable[str | os.PathLike[str]] = ()) -> Dash:
    """Return the dashboard of some runs, ready to be served.

    Parameters
    ----------
    runs : path, looplens.Run, or several of them
        Directories of recorded runs, or folders that hold runs.
    models : iterable of path
        Checkpoint directories, or folders of them, that the page Live may record from beside the
        bundled models.

    Returns
    -------
    dash.Dash
        The app; its Flask server is ``app.server``.

    Raises
    ------
    NotARunError, SchemaVersionError, CorruptRunError
        If there is no run, or the only one cannot be opened. Damage that shows only when a part is
        read is reported in the panel that reads it.
    """
    workspace = Workspace(runs, may_be_empty=True)
    views = Views(workspace, pages.choices(), live=LiveSession(models))
    shell = wiring.Shell(views, pages.PAGES, pages.BAR)
    app = Dash(
        "looplens_dashboard",
        assets_folder=str(Path(__file__).parent / "assets"),
        serve_locally=True,
        external_scripts=[],
        external_stylesheets=[],
        title="looplens",
        update_title="",
        add_log_handler=False,
        enable_mcp=False,
        suppress_callback_exceptions=True,  # bar and panels come and go
        use_async=False,  # by default it depends on what else happens to be installed
    )
    app.index_string = app.index_string.replace("{%favicon%}", _ICON)
    app.index_string = app.index_string.replace("<html>", '<html lang="en">')
    secure(app)
    app.enable_dev_tools(debug=False, dev_tools_disable_version_check=True)
    app.layout = layout.page(pages.PAGES, pages.BAR)
    wiring.register(app, shell)
    exporting.register(app, shell)
    app.server.extensions["looplens-shell"] = shell
    return app
