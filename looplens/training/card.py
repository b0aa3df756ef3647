"""The model card of a trained model: ``README.md`` for people and ``card.json`` for programs.

Both are generated from what was measured; nothing is written by hand and nothing is measured here.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from looplens.errors import InputError
from looplens.models import AdaptiveConfig, AdaptiveTransformer, LoopedTransformer
from looplens.prompts import Prompt
from looplens.tasks import Task, get_task
from looplens.training.evaluate import Evaluation
from looplens.training.exit_evaluation import ExitEvaluation
from looplens.training.recipe import Recipe, Stage
from looplens.training.recipes import RECIPES

CARD = "card.json"
README = "README.md"


def write_card(
    directory: Path,
    recipe: Recipe,
    model: LoopedTransformer | AdaptiveTransformer,
    evaluation: Evaluation,
    *,
    seconds: float,
    threads: int,
    device: str = "cpu",
    changed_steps: bool = False,
    exits: ExitEvaluation | None = None,
    held_out: bool = True,
) -> dict[str, Any]:
    """Write both cards into a checkpoint directory and return the content of ``card.json``.

    Parameters
    ----------
    directory : Path
        The checkpoint directory.
    recipe : Recipe
        What was trained, with the steps that were taken.
    model : LoopedTransformer or AdaptiveTransformer
        The trained model; its parameters are counted.
    evaluation : Evaluation
        Accuracy, including that at the model's ``default_iterations``.
    seconds : float
        Time spent on the steps.
    threads, device : int, str
        Where it was trained.
    changed_steps : bool
        The steps are not those of the registered recipe, so the command names them.
    exits : ExitEvaluation, optional
        Of a model with an exit gate.
    held_out : bool
        Whether the accuracy is that on texts that were not trained on.
    """
    card = card_values(
        recipe,
        model,
        evaluation,
        seconds=seconds,
        threads=threads,
        device=device,
        changed_steps=changed_steps,
        exits=exits,
        held_out=held_out,
        place=directory.name if directory.is_absolute() else directory.as_posix(),
    )
    (directory / CARD).write_text(json.dumps(card, indent=2) + "\n")
    (directory / README).write_text(readme(card, recipe))
    return card


def card_values(
    recipe: Recipe,
    model: LoopedTransformer | AdaptiveTransformer,
    evaluation: Evaluation,
    *,
    seconds: float,
    threads: int,
    device: str,
    changed_steps: bool,
    exits: ExitEvaluation | None = None,
    held_out: bool = True,
    place: str = "",
) -> dict[str, Any]:
    """Return everything the card says as plain values; the arguments are those of `write_card`.

    ``place`` is the directory, as a reader may find it.
    """
    recommended = model.cfg.default_iterations
    if _is_registered(recipe):
        command = f"looplens train {recipe.name} --out models/{recipe.name}"
        command += f" --steps {recipe.steps}" if changed_steps else ""
        command += f" --threads {threads}" + (f" --device {device}" if device != "cpu" else "")
    else:
        where = f', device="{device}"' if device != "cpu" else ""
        command = f'looplens.training.train(recipe, "{place}", threads={threads}{where})'
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
        "directory": place,
        "evaluated_on": "held-out" if held_out else "training distribution",
        "fingerprint": recipe.fingerprint(),
        "evaluation": evaluation.as_dict(),
        **({} if exits is None else {"exits": exits.as_dict()}),
        "recipe": recipe.as_dict(),
    }


def readme(card: dict[str, Any], recipe: Recipe) -> str:
    """Return the readable card."""
    task = get_task(recipe.task)
    model, evaluation = recipe.model, card["evaluation"]
    last = recipe.curriculum[-1]
    example = _example(task, last)
    rows = [
        ("task", f"{task.title} (`{task.name}`), {_tokens_of(task)}"),
        ("example", f"`{example.text}`"),
        ("width", f"{model.d_model}; {card['parameters']:,} parameters"),
        *_rows_of_model(recipe),
        ("recommended iterations", str(card["recommended_iterations"])),
        ("steps", f"{card['steps']} of {recipe.batch} sequences, seed {card['seed']}"),
        ("time", f"{card['seconds']:.0f} s, {card['threads']} thread(s), {card['device']}"),
        ("torch", card["torch_version"]),
    ]
    held_out = card["evaluated_on"] == "held-out"
    measured = "Held-out accuracy" if held_out else "Accuracy on the training distribution"
    registered = _is_registered(recipe)
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
        f"{measured} **{card['accuracy']:.2%}** at {card['recommended_iterations']} "
        f"iterations ({evaluation['sequences']} sequences, {sum(evaluation['targets'])} targets).",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows),
        "",
        f"## {measured} by iterations (rows) and {task.difficulty_unit} (columns)",
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
        *(_exit_lines(card["exits"], task, measured) if "exits" in card else ()),
        "## Use",
        "",
        "```python",
        "import looplens",
        "",
        f'model = looplens.load_model("{card["name"] if registered else card["directory"]}")',
        f'logits = model("{example.text}")  # (1, position, vocabulary)',
        "```",
        "",
        "## Rebuild",
        "",
        "```console" if registered else "```python",
        card["command"] if registered else f"import looplens.training\n\n{card['command']}",
        "```",
        "",
        *(() if registered else ("`recipe` has the settings under `recipe` in `card.json`.", "")),
        "Equal recipe, seed, threads and torch version give equal weights on one kind of machine; "
        "elsewhere rounding may differ.",
        "",
    ]
    return "\n".join(lines)


def _is_registered(recipe: Recipe) -> bool:
    """Say whether ``looplens train`` knows the recipe, perhaps with other steps."""
    known = RECIPES.get(recipe.name)
    return known is not None and dataclasses.replace(known, steps=recipe.steps) == recipe


def _rows_of_model(recipe: Recipe) -> list[tuple[str, str]]:
    """Say how the model loops."""
    model = recipe.model
    if isinstance(model, AdaptiveConfig):
        banks = f"{model.local_slots} slots a layer, {model.global_slots} for all"
        return [
            ("layers", f"{model.n_layers}, each for up to {model.max_steps} steps"),
            ("halting", model.halting),
            ("memory", banks if model.local_slots or model.global_slots else "none"),
        ]
    always_all = recipe.depth.kind == "fixed" and recipe.depth.mean <= recipe.backprop_iterations
    rows = [
        ("layers", f"{model.n_prelude} prelude, {model.n_core} core, {model.n_coda} coda"),
        ("injection", model.injection),
        ("initial state", model.initial_state),
        ("norm", model.norm + (", and at the loop boundary" if model.loop_norm else "")),
        ("trained depth", str(recipe.depth)),
        (
            "iterations with gradient",
            "all" if always_all else f"the last {recipe.backprop_iterations}",
        ),
    ]
    if recipe.loss.kind != "last":
        rows.append(("loss", str(recipe.loss)))
    if recipe.base is not None:
        rows.append(("continued from", f"`{recipe.base.name}`, {recipe.base.steps} steps"))
    return rows


def _exit_lines(exits: dict[str, Any], task: Task, measured: str) -> list[str]:
    """Say when the gate lets tokens leave, and how often they are right there."""
    levels = zip(exits["difficulty"], exits["expected_exit"], strict=True)
    rows = zip(exits["quantile"], exits["iterations"], exits["accuracy"], strict=True)
    return [
        f"## Exits by the gate ({measured[0].lower() + measured[1:]})",
        "",
        f"Expected exit by {task.difficulty_unit}: "
        + ", ".join(f"{value:.2f} ({level})" for level, value in levels)
        + f". Mean entropy of the exits {exits['entropy']:.2f} nats.",
        "",
        "| leave at cumulative probability | mean iteration | accuracy there |",
        "|---|---|---|",
        *(f"| {q:g} | {step:.2f} | {accuracy:.4f} |" for q, step, accuracy in rows),
        "",
    ]


def _example(task: Task, stage: Stage) -> Prompt:
    """Draw a short example where the task allows one."""
    try:
        return task.prompts(1, length=min(8, stage.length), difficulty=stage.difficulty)[0]
    except InputError:
        return task.prompts(1, length=stage.length, difficulty=stage.difficulty)[0]


def _tokens_of(task: Task) -> str:
    if task.characters:
        return f"characters `{task.characters}`"
    shown = " ".join(task.words[:40]) + (" ..." if len(task.words) > 40 else "")
    return f"{len(task.words)} words `{shown}`"
