"""Stored bits: nothing before training, everything once a model knows all people."""

import numpy as np
import pytest
import torch

from looplens.tasks import get_task
from looplens.training import k_by_l
from looplens.training.capacity import capacity
from looplens.training.step import build_model, make_optimizer, take_step

TASK = "bios:people=4"


def recipe(**settings):
    return k_by_l(
        TASK,
        1,
        2,
        d_model=16,
        n_ctx=24,
        steps=80,
        batch=8,
        warmup=5,
        learning_rate=2e-2,
        **settings,
    )


def test_bits_come_with_training():
    wanted = recipe()
    model = build_model(wanted)
    before = capacity(model, get_task(TASK))
    assert before.bits == before.per_parameter == 0.0  # guessing among all words
    optimizer = make_optimizer(model, wanted)
    for step in range(wanted.steps):
        take_step(wanted, model, optimizer, step)
    known = capacity(model, get_task(TASK))
    # Which of the four people comes next cannot be known: log 4 nats remain at the names.
    assert known.name_nats == pytest.approx(np.log(4), abs=0.1)
    assert known.value_nats < 0.1
    assert known.bits == pytest.approx(known.most_bits, rel=0.01)
    assert known.parameters == sum(weight.numel() for weight in model.parameters())
    assert capacity(model, get_task(TASK), batch=3).bits == pytest.approx(known.bits, rel=1e-4)
    assert capacity(model, get_task(TASK), iterations=1).bits < known.bits


def test_random_starts_are_repeatable():
    model = build_model(recipe(model={"initial_state": "noise", "injection": "add"}))
    with torch.no_grad():
        first, again = (capacity(model, get_task(TASK)) for _ in range(2))
    assert first == again
