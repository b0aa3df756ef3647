"""Variants of a task by name: ``addition:digits=2,reverse=true`` is a task like any other.

The options of a task are the keyword arguments of its constructor, each with a default. A name
with options is all that a recipe or a card has to keep. Nothing here knows which tasks there are.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from looplens.errors import InputError, named
from looplens.tasks.base import Task

Value = bool | int | str


def options_of(task: type[Task]) -> dict[str, Value]:
    """Return the options of a kind of task with their defaults."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(task).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def with_options(kind: type[Task], base: str, text: str) -> Task:
    """Make a variant of a task.

    Parameters
    ----------
    kind : type of Task
        Its class.
    base : str
        The name of the task without options.
    text : str
        Options as ``name=value,name=value``; a value is a whole number, ``true``, ``false`` or a
        word, as the default of that option is.

    Returns
    -------
    Task
        Its ``name`` says the options that differ from their defaults, in a fixed order, so that
        one variant has one name.

    Raises
    ------
    InputError
        When an option is unknown, or its value is none that it can have.
    """
    defaults = options_of(kind)
    given: dict[str, Value] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not defaults:
            raise InputError(f"Task {base!r} has no options; got {part!r}.")
        default = named(name.strip(), defaults, f"{base} option")
        if not equals:
            raise InputError(f"Options are given as name=value; got {part!r} for task {base!r}.")
        given[name.strip()] = _read(value.strip(), default, f"{base}:{name.strip()}")
    task = kind(**given)
    task.name = name_of(base, defaults, given)
    return task


def name_of(base: str, defaults: Mapping[str, Value], given: Mapping[str, Value]) -> str:
    """Return the one name of a variant: options in the order of the constructor."""
    changed = [
        f"{name}={str(given[name]).lower() if isinstance(given[name], bool) else given[name]}"
        for name, default in defaults.items()
        if name in given and given[name] != default
    ]
    return f"{base}:{','.join(changed)}" if changed else base


def _read(value: str, default: Value, name: str) -> Value:
    if isinstance(default, bool):
        return named(value, {"true": True, "false": False}, f"{name} value")
    if isinstance(default, int):
        try:
            return int(value)
        except ValueError:
            raise InputError(
                f"{name} is a whole number, such as {default}; got {value!r}."
            ) from None
    return value
