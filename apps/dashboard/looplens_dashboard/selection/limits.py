"""The sizes of a run that a selection has to respect, as plain data."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from looplens_dashboard.selection.choices import Choice, Options


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The sizes of a run, and what can be chosen in it.

    Parameters
    ----------
    run : str
        Key of the run among those that the app shows.
    first_tokens : sequence of int
        Global number of the first token of each prompt, and last the number of all tokens.
    restarts, iterations : int
        Restarts; iterations T.
    kept_iterations : tuple of int
        Iterations that can be selected, ascending; empty for 0 to T.
    layers : tuple of int
        Core layers of which states or attention were recorded.
    attention_layers : tuple of int
        Core layers whose attention was recorded.
    heads : int
        Heads whose attention was recorded; 0 when none was.
    choices : mapping of str to Choice
        What panels let one choose beside the shared selection, by name.
    options : mapping of str to Options
        What each of the choices can be in this run.
    """

    run: str
    first_tokens: Sequence[int]
    restarts: int
    iterations: int
    kept_iterations: tuple[int, ...] = ()
    layers: tuple[int, ...] = ()
    attention_layers: tuple[int, ...] = ()
    heads: int = 0
    choices: Mapping[str, Choice] = field(default_factory=dict)
    options: Mapping[str, Options] = field(default_factory=dict)

    @property
    def selectable(self) -> Sequence[int]:
        """The iterations that the scrubber can stand at."""
        return self.kept_iterations or range(self.iterations + 1)

    @property
    def prompts(self) -> int:
        """How many prompts there are."""
        return len(self.first_tokens) - 1

    @property
    def tokens(self) -> int:
        """How many tokens there are."""
        return int(self.first_tokens[-1])

    def prompt_of(self, token: int) -> int:
        """Return the prompt that a global token number lies in."""
        return bisect_right(self.first_tokens, token) - 1

    def tokens_of(self, prompt: int) -> range:
        """Return the global token numbers of a prompt."""
        return range(self.first_tokens[prompt], self.first_tokens[prompt + 1])
