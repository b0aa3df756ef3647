"""Takes what is shown out of the app: data of a figure, the Python of it, a page as one file."""

from looplens_dashboard.exporting.data import as_csv, as_json
from looplens_dashboard.exporting.page import as_page
from looplens_dashboard.exporting.routes import register

__all__ = ["as_csv", "as_json", "as_page", "register"]
