"""Frey et al.: adaptive loops in every layer, with gated memory (arXiv:2603.08391).

No weights are published, so there are no names to read: the model is
:class:`looplens.models.adaptive.AdaptiveTransformer`, saved and loaded in the layout of looplens.
It is a reconstruction, since no public file combines router, gated memory and both banks.
"""

from __future__ import annotations

from looplens.models.families.base import Facts

NAME = "frey"
TITLE = "Frey et al., adaptive loops per layer with memory (reconstruction)"

FACTS = Facts(
    initial_state="the layer's input",
    injection="memory read in every step, through a gate",
    boundary_norm="none",
    readout="states weighted by the halting distribution, to the next layer",
    default_depth="max_steps (3, 5 or 7) in each layer",
    exit_rule="halting router; a layer may stop when little mass is left in the whole batch",
    load="AdaptiveTransformer(AdaptiveConfig(...)); no weights are published",
    not_supported="looplens.trace and record, which want one loop: use model.trace",
)
