"""Serves the app, and decides who is answered.

`secure` puts checks and headers around an app; every app has it, whatever serves it. `serve_http`
serves an app until it is interrupted, `running` in a thread. On this machine's own address nothing
more is needed; on any other one a token is. Nothing here knows what the pages show.
"""

from looplens_dashboard.serving.access import AccessToken
from looplens_dashboard.serving.hosts import is_loopback
from looplens_dashboard.serving.security import Rules, secure
from looplens_dashboard.serving.server import Server, running, serve_http

__all__ = ["AccessToken", "Rules", "Server", "is_loopback", "running", "secure", "serve_http"]
