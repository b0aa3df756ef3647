"""What a push is: an intervention that names neither tokens nor, if need be, passes.

The questions of this room push one token after the other at one pass, so the template is filled in
here, for a position, and with the pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from looplens.dynamics.maps.recorded import Recorded
from looplens.errors import InputError
from looplens.loops import SiteAddress
from looplens.recording.changing.interventions import Intervention


def placed(push: Intervention, iteration: int | None, hold: bool, found: Recorded) -> Intervention:
    """Return the push with the pass in its address.

    Parameters
    ----------
    push : Intervention
        Without tokens; its address may name passes.
    iteration : int or None
        The pass, by default the last one recorded.
    hold : bool
        Push in every later pass too.
    found : Recorded
        The trajectory.

    Raises
    ------
    InputError
        If it names tokens, or passes are said twice.
    """
    if not isinstance(push, Intervention):
        raise InputError(
            "push must be an Intervention, such as Intervention.noise('hook_state', 0.1), got "
            f"{type(push).__name__}"
        )
    if push.tokens is not None:
        raise InputError(
            f"{push!r} names tokens: leave them out, and say with tokens= which ones are pushed, "
            "one after the other"
        )
    address = SiteAddress.parse(push.address)
    if address.iterations is not None:
        if iteration is not None or hold:
            raise InputError(
                f"the address {push.address!r} names passes already: leave iteration= and hold= "
                "out, or the passes"
            )
        last = found.iterations[-1]
        if not any(address.matches_iteration(t, last) for t in range(1, last + 1)):
            raise InputError(f"{push.address!r} means none of the recorded passes 1 to {last}")
        # Negative passes count back from the recorded end, not from where the pushed run ends.
        numbers = [
            str(last + 1 + int(text)) if text.startswith("-") else text
            for text in address.iterations.split(":")
        ]
        return replace(push, address=f"{address.site}@{':'.join(numbers)}")
    at = pass_of(found, iteration)
    return replace(push, address=f"{address.site}@{at}{':' if hold else ''}")


def pass_of(found: Recorded, iteration: int | None) -> int:
    """Return the number of a pass, by default the last recorded one; negative ones count back.

    Raises
    ------
    InputError
        If no state before it was recorded, or it is no pass of the recording.
    """
    first, last = found.iterations[0], found.iterations[-1]
    at = last if iteration is None else iteration + last + 1 if iteration < 0 else iteration
    if not first < at <= last:
        raise InputError(
            f"iteration={iteration} cannot be pushed: the passes that follow a recorded state are "
            f"{first + 1} to {last}"
        )
    return at


def passes_of(push: Intervention, found: Recorded, iterations: int) -> list[int]:
    """Return the passes in which a placed push acts, up to so many after the first one."""
    address, last = SiteAddress.parse(push.address), found.iterations[-1]
    first = next(t for t in range(1, last + 1) if address.matches_iteration(t, last))
    end = pass_of(found, first) + iterations
    return [t for t in range(first, end + 1) if address.matches_iteration(t, end)]


def for_tokens(push: Intervention, positions: Sequence[int]) -> list[tuple[Intervention]]:
    """Return one variant for every position."""
    return [(replace(push, tokens=position),) for position in positions]
