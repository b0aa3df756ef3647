"""One call of a function of looplens: what a panel is.

Drawing the panel makes the call, "copy the Python" prints it, its data is what the call returns.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from looplens import plots
from looplens.run import Run


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A call of a figure of `looplens.plots` on a run.

    Parameters
    ----------
    function : str
        Name in ``looplens.plots``.
    arguments : mapping of str to object
        By name, without the run and the theme. None leaves the default of the function.
    """

    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def draw(self, run: Run, theme: str = "light") -> plots.Figure:
        """Make the call.

        Parameters
        ----------
        run : looplens.Run
            The opened run.
        theme : {"light", "dark"}
            Template of the figure.
        """
        return getattr(plots, self.function)(run, **self._given(), theme=theme)

    def code(self, run: Run, theme: str = "light") -> str:
        """Return Python that makes the same figure in a notebook."""
        return "\n".join(
            [
                "import looplens",
                "from looplens import plots",
                "",
                f"run = looplens.open_run({str(run.path)!r})",
                f"figure = {self.text(theme)}",
                "figure.show()",
                "",
            ]
        )

    def text(self, theme: str = "light") -> str:
        """Return the call as Python, its run being called ``run``."""
        signature = inspect.signature(getattr(plots, self.function))
        shown = [
            f"{name}={value!r}"
            for name, value in self._given().items()
            if signature.parameters[name].default != value
        ]
        if theme != "light":
            shown.append(f"theme={theme!r}")
        return f"plots.{self.function}({', '.join(['run', *shown])})"

    def _given(self) -> dict[str, Any]:
        return {name: value for name, value in self.arguments.items() if value is not None}


def figure_call(function: str, **arguments: Any) -> Call:
    """Return the call of a figure; see :class:`Call`."""
    return Call(function=function, arguments=arguments)
