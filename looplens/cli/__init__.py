"""The command ``looplens``: each command is a few lines over the public Python API."""

from looplens.cli.main import main

__all__ = ["main"]
