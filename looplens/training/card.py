"""The model card of a trained model: ``README.md`` for people and ``card.json`` for programs.

Both are generated from what was measured; nothing is written by hand and nothing is measured here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from looplens.models import LoopedTransformer
from looplens.tasks import get_task
from looplens.training.evaluate import Evaluation
from looplens.training.recipe import Recipe

CARD = "card.json"
README = "README.md"


def write_card(
    directory: Path,
    recipe: Recipe,
    model: LoopedTransformer,
    evaluation: Evaluation,
    *,
    seconds: float,
    threads: int,
    device: str = "cpu",
    changed_steps: bool = False,
) -> dict[str, Any]:
    """Write both cards into a checkpoint directory and return the content of ``card.json``.

    Parameters
    ----------
    directory : Path
        The checkpoint directory.
    recipe : Recipe
        What was trained, with the steps that were taken.
    model : LoopedTransformer
        The trained model; its parameters are counted.
    evaluation : Evaluation
        Held-out accuracy, including the model's ``default_iterations``.
    seconds : float
        Time spent on the steps.
    threads, device : int, str
        Where it was trained.
    changed_steps : bool
        The steps are not those of the registered recipe, so the command names them.
    """
    card = card_values(
        recipe,
        model,
        evaluation,
        seconds=seconds,
        threads=threads,
        device=device,
        changed_steps=changed_steps,
    )
    (directory / CARD).write_text(json.dumps(card, indent=2) + "\n")
    (directory / README).write_text(readme(card, recipe))
    return card


def card_values(
    recipe: Recipe,
    model: LoopedTransformer,
    evaluation: Evaluation,
    *,
    seconds: float,
    threads: int,
    device: str,
    changed_steps: bool,
) -> dict[str, Any]:
    """Return everything the card says as plain values; the arguments are those of `write_card`."""
    recommended = model.cfg.default_iterations
    command = f"looplens train {recipe.name} --out models/{recipe.name}"
    command += f" --steps {recipe.steps}" if changed_steps else ""
    command += f" --threads {threads}" + (f" --device {device}" if device != "cpu" else "")
    return {
        "name": recipe.name,
        "summary": recipe.summary,
        "task": recipe.task,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "recommended_iterations": recommended,
        "accuracy": evaluation.accuracy_at(recommended),
        "trained_depth": str(recipe.depth),
        "steps": recipe.steps,
        "seed": recipe.seed,
        "seconds": round(seconds, 1),
        "threads": threads,
        "device": device,
        "torch_version": torch.__version__,
        "command": command,
        "fingerprint": recipe.fingerprint(),
        "evaluation": evaluation.as_dict(),
        "recipe": recipe.as_dict(),
    }


def readme(card: dict[str, Any], recipe: Recipe) -> str:
    """Return the readable card."""
    task = get_task(recipe.task)
    model, evaluation = recipe.model, card["evaluation"]
    last = recipe.curriculum[-1]
    example = task.prompts(1, length=min(8, last.length), difficulty=last.difficulty)[0]
    always_all = recipe.depth.kind == "fixed" and recipe.depth.mean <= recipe.backprop_iterations
    with_gradient = "all" if always_all else f"the last {recipe.backprop_iterations}"
    layers = f"{model.n_prelude} prelude, {model.n_core} core, {model.n_coda} coda"
    rows = [
        ("task", f"{task.title} (`{task.name}`), characters `{task.characters}`"),
        ("example", f"`{example.text}`"),
        ("layers", f"{layers}; width {model.d_model}, {card['parameters']:,} parameters"),
        ("injection", model.injection),
        ("initial state", model.initial_state),
        ("norm", model.norm + (", and at the loop boundary" if model.loop_norm else "")),
        ("trained depth", card["trained_depth"]),
        ("iterations with gradient", with_gradient),
        ("recommended iterations", str(card["recommended_iterations"])),
        ("steps", f"{card['steps']} of {recipe.batch} sequences, seed {card['seed']}"),
        ("time", f"{card['seconds']:.0f} s, {card['threads']} thread(s), {card['device']}"),
        ("torch", card["torch_version"]),
    ]
    lines = [
        "---",
        "library_name: looplens",
        "license: mit",
        "tags: [looped-transformer, recurrent-depth, interpretability]",
        "---",
        f"# {card['name']}",
        "",
        card["summary"],
        "",
        f"Held-out accuracy **{card['accuracy']:.2%}** at {card['recommended_iterations']} "
        f"iterations ({evaluation['sequences']} sequences, {sum(evaluation['targets'])} targets).",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows),
        "",
        f"## Held-out accuracy by iterations (rows) and {task.difficulty_unit} (columns)",
        "",
        "| iterations | all | " + " | ".join(map(str, evaluation["difficulty"])) + " |",
        "|---|---|" + "---|" * len(evaluation["difficulty"]),
        *(
            f"| {count} | {accuracy:.4f} | " + " | ".join(f"{value:.3f}" for value in row) + " |"
            for count, accuracy, row in zip(
                evaluation["iterations"],
                evaluation["accuracy"],
                evaluation["accuracy_by_difficulty"],
                strict=True,
            )
        ),
        "",
        "## Use",
        "",
        "```python",
        "import looplens",
        "",
        f'model = looplens.load_model("{card["name"]}")',
        f'logits = model("{example.text}")  # (1, position, vocabulary)',
        "```",
        "",
        "## Rebuild",
        "",
        "```console",
        card["command"],
        "```",
        "",
        "Equal recipe, seed, threads and torch version give equal weights on one kind of machine; "
        "elsewhere rounding may differ.",
        "",
    ]
    return "\n".join(lines)
