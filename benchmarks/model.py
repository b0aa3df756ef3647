"""What hook points cost while nobody listens, and our forward against that of transformers."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.masking_utils import create_causal_mask
from transformers.utils import logging

import looplens
from benchmarks._plain import PlainLoop
from benchmarks._rows import Row, interleaved, median_ratio
from looplens.models import LoopedConfig, LoopedTransformer

SPAN = (1, 5)  # of six layers
ITERATIONS = 8


def rows(*, quick: bool = False) -> list[Row]:
    """Measure both at widths 512 and 64, batch 1."""
    logging.disable_progress_bar()
    wide = 3 if quick else 11
    narrow = 20 if quick else 80
    return [
        against_plain(512, 8, pos=128, repeats=wide, goal=1.05),
        against_plain(64, 4, pos=32, repeats=narrow, goal=1.3),
        against_transformers(512, 8, pos=128, repeats=wide),
        against_transformers(64, 4, pos=32, repeats=narrow),
    ]


@torch.no_grad()
def against_plain(d_model: int, heads: int, *, pos: int, repeats: int, goal: float) -> Row:
    """Measure idle hook points."""
    torch.manual_seed(0)
    cfg = LoopedConfig(
        d_model=d_model,
        n_heads=heads,
        d_mlp=4 * d_model,
        d_vocab=64,
        n_ctx=pos,
        n_prelude=1,
        n_core=4,
        n_coda=1,
        initial_state="zeros",
        rope_style="adjacent",
    )
    model = LoopedTransformer(cfg, name="random").eval()
    plain = PlainLoop(model)
    tokens = torch.randint(0, cfg.d_vocab, (1, pos))
    return _row(
        lambda: model(tokens, iterations=ITERATIONS),
        lambda: plain(tokens, ITERATIONS),
        name=f"forward with idle hook points (d_model {d_model}, 1 x {pos} tokens), "
        "without any = 1",
        peer="without, ms",
        repeats=repeats,
        goal=goal,
        limit="calls of Python between the operations of a narrow model: eleven hook points a "
        "layer, and the choices that a configuration leaves open.",
    )


@torch.no_grad()
def against_transformers(d_model: int, heads: int, *, pos: int, repeats: int) -> Row:
    """Measure a Llama whose middle layers are looped, against the same layers of transformers."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=d_model,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=4 * d_model,
        num_hidden_layers=SPAN[1] + 1,
        vocab_size=64,
        max_position_embeddings=pos,
    )
    theirs = LlamaForCausalLM(config).eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        model = looplens.load_model(folder, loop=SPAN)
    tokens = torch.randint(0, config.vocab_size, (1, pos))
    return _row(
        lambda: model(tokens, iterations=ITERATIONS),
        lambda: looped_llama(theirs, tokens),
        name=f"forward of a looped Llama span (d_model {d_model}, 1 x {pos} tokens), "
        "transformers' layers = 1",
        peer="transformers, ms",
        repeats=repeats,
        goal=1.0,
        limit="both spend their time in the same matrix products.",
    )


def looped_llama(llama: LlamaForCausalLM, tokens: Tensor) -> Tensor:
    """Run the layers of a Llama as its own forward does, those of the span several times."""
    inner = llama.model
    x = inner.embed_tokens(tokens)
    positions = torch.arange(tokens.shape[1])[None]
    shared = {
        "position_ids": positions,
        "position_embeddings": inner.rotary_emb(x, position_ids=positions),
        "attention_mask": create_causal_mask(
            config=inner.config,
            inputs_embeds=x,
            attention_mask=None,
            past_key_values=None,
            position_ids=positions,
        ),
    }
    before, span, behind = (
        inner.layers[: SPAN[0]],
        inner.layers[slice(*SPAN)],
        inner.layers[SPAN[1] :],
    )
    for layer in [*before, *[*span] * ITERATIONS, *behind]:
        x = layer(x, **shared)
    return llama.lm_head(inner.norm(x))


def _row(
    ours: Callable[[], Tensor],
    theirs: Callable[[], Tensor],
    *,
    name: str,
    peer: str,
    repeats: int,
    goal: float,
    limit: str,
) -> Row:
    torch.testing.assert_close(ours(), theirs(), atol=1e-4, rtol=1e-4)  # the same mathematics
    seconds = interleaved({"ours": ours, "theirs": theirs}, repeats)
    return Row(
        name=name,
        value=median_ratio(seconds, "ours", "theirs"),
        unit="x",
        goal=goal,
        peers={peer: 1e3 * statistics.median(seconds["theirs"])},
        limit=limit,
    )
