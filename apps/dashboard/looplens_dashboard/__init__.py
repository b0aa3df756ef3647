"""The looplens dashboard: scrub iterations, click tokens, compare restarts of one recorded run.

A thin shell: every number comes from ``looplens.analysis``, every figure from ``looplens.plots``.
It needs no torch, no model and no network.
"""

from looplens_dashboard.app import create_app, serve

__all__ = ["create_app", "serve"]
