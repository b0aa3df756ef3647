"""What a generation was: tokens, and the states that they were read from, on two time axes.

One axis is the text (generated tokens), the other the loop (iterations). This module holds the
record and knows nothing of how it came about.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from looplens.errors import AnalysisError


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """A text that a looped model wrote, with what it went through.

    Row ``n`` of every field belongs to generated token ``n``; its states are those of the position
    that it was read from: the last of the prompt for token 0, that of token ``n - 1`` afterwards.

    Attributes
    ----------
    prompt_ids : Int[Tensor, "pos"]
        What was given.
    token_ids : Int[Tensor, "token"]
        What was generated.
    text : str or None
        ``token_ids`` as text, where the model has a tokenizer.
    logits : Float[Tensor, "token d_vocab"]
        What each token was chosen from.
    exits : Int[Tensor, "token"]
        After which iteration each token was read out.
    fired : Bool[Tensor, "token"]
        Whether the exit rule said so; where not, ``exits`` is the last iteration.
    iterations_used : Int[Tensor, "token"]
        How many iterations were run. As ``exits``, except that the prompt always runs all
        of them, so that later tokens find its keys at every depth.
    iterations : int
        The most iterations a token could run.
    states : Float[Tensor, "token iteration+1 d_model"] or None
        Loop states, index 0 the initial one. Behind ``iterations_used`` a token stays where it
        stopped; :meth:`trajectory` leaves that out. ``None`` where not recorded.
    kv : str
        The cache strategy in effect.
    """

    prompt_ids: Int[Tensor, " pos"]
    token_ids: Int[Tensor, " token"]
    text: str | None
    logits: Float[Tensor, "token d_vocab"]
    exits: Int[Tensor, " token"]
    fired: Bool[Tensor, " token"]
    iterations_used: Int[Tensor, " token"]
    iterations: int
    states: Float[Tensor, "token iteration_and_initial d_model"] | None
    kv: str

    def __len__(self) -> int:
        return len(self.token_ids)

    def __repr__(self) -> str:
        shown = repr(self.text) if self.text is not None else str(self.token_ids.tolist())
        used = self.exits.float().mean().item()
        return f"Generation({shown}, {len(self)} tokens, {used:.1f} iterations a token)"

    def trajectory(self, token: int) -> Float[Tensor, "iteration_and_initial d_model"]:
        """Return the states that one token really went through, iteration 0 first.

        Raises
        ------
        AnalysisError
            If states were not recorded.
        """
        if self.states is None:
            raise AnalysisError("states were not recorded: generate with record=True")
        return self.states[token, : int(self.iterations_used[token]) + 1]
