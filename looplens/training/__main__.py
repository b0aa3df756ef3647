"""``python -m looplens.training RECIPE --out DIRECTORY``: train a recipe from the command line.

It only reads arguments; ``loop.train`` does the work.
"""

from __future__ import annotations

import argparse
import sys

from looplens.errors import LoopLensError
from looplens.training.loop import train
from looplens.training.recipes import RECIPES


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code: 0, or 2 for an error of the input."""
    parser = argparse.ArgumentParser(
        prog="python -m looplens.training", description="Train a small looped model."
    )
    parser.add_argument("recipe", help=", ".join(sorted(RECIPES)))
    parser.add_argument("--out", required=True, help="directory of the finished model")
    parser.add_argument("--steps", type=int, help="steps instead of the recipe's")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--checkpoints", help="resumable state and log [checkpoints/RECIPE]")
    parser.add_argument("--fresh", action="store_true", help="ignore an earlier checkpoint")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    values = parser.parse_args(arguments)
    try:
        result = train(
            values.recipe,
            values.out,
            steps=values.steps,
            resume=not values.fresh,
            progress=not values.quiet,
            device=values.device,
            threads=values.threads,
            checkpoints=values.checkpoints,
        )
    except LoopLensError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for iterations, accuracy in zip(
        result.evaluation.iterations, result.evaluation.accuracy, strict=True
    ):
        print(f"{iterations:4d} iterations: held-out accuracy {accuracy:.4f}")
    print(f"{result.steps} steps in {result.seconds:.0f} s; model: {result.directory}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
