"""Site addresses: a hook point together with the passes of the loop that are meant.

``core.2.hook_resid_post@7`` is one site in one pass; ``core.*.hook_resid_post@4:`` is that site of
every core layer from the fourth pass on. This module parses and matches names; it knows nothing
of models or tensors.

Grammar::

    address    = site [ "@" iterations ]
    site       = hook name; "*" matches within one dotted part, "**" across parts; a name that is
                 the end of a longer one matches it ("attn.hook_pattern")
    iterations = "*" | N | [start] ":" [stop] [ ":" step ]     counted from 1, stop excluded,
                 negative numbers count from the end (-1 is the last pass)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from looplens.errors import SiteError, near_matches

_ITERATIONS = re.compile(r"^(-?\d+)?(?::(-?\d+)?)?(?::(\d+)?)?$")


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteAddress:
    """A parsed site address.

    Parameters
    ----------
    site : str
        Hook name or pattern.
    iterations : str or None
        The part behind ``@`` as written; ``None`` where there was none, which means every firing,
        inside and outside the loop.
    """

    site: str
    iterations: str | None = None

    @classmethod
    def parse(cls, text: str | SiteAddress) -> SiteAddress:
        """Parse ``"core.*.hook_resid_post@4:"``.

        Raises
        ------
        SiteError
            If the text is no address.
        """
        if isinstance(text, SiteAddress):
            return text
        site, at, iterations = text.partition("@")
        if not site or (at and not iterations):
            raise SiteError(
                f"expected a site address such as 'core.0.hook_resid_post@7', got {text!r}"
            )
        if at and iterations != "*" and not _is_iterations(iterations):
            raise SiteError(
                f"expected iterations such as '7', '4:', '2:8', '-1' or '*' behind the '@' "
                f"of {text!r}, got {iterations!r}"
            )
        return cls(site=site, iterations=iterations if at else None)

    def __str__(self) -> str:
        return self.site if self.iterations is None else f"{self.site}@{self.iterations}"

    def matches_site(self, name: str) -> bool:
        """Tell whether the hook point ``name`` is meant, in whatever pass."""
        return _pattern(self.site).fullmatch(name) is not None

    def matches_iteration(self, iteration: int | None, iterations: int | None) -> bool:
        """Tell whether a firing in pass ``iteration`` of ``iterations`` is meant.

        An address with an ``@`` never means a firing outside the loop (``iteration`` is ``None``).
        """
        if self.iterations is None:
            return True
        if iteration is None or iterations is None:
            return False
        return iteration in _wanted(self.iterations, iterations)


def match_sites(address: SiteAddress, names: Iterable[str]) -> list[str]:
    """Return the hook names that an address means, in the order given.

    Raises
    ------
    SiteError
        If there is none; the message lists near matches.
    """
    known = list(names)
    found = [name for name in known if address.matches_site(name)]
    if not found:
        hint = near_matches(address.site, known) or (
            " Known sites are such as " + ", ".join(known[:6]) + "."
        )
        raise SiteError(f"site address {str(address)!r} matches no hook point.{hint}")
    return found


@lru_cache(maxsize=512)
def _pattern(site: str) -> re.Pattern[str]:
    parts = [
        {"**": ".*", "*": r"[^.]*"}.get(part, re.escape(part))
        for part in re.split(r"(\*\*|\*)", site)
    ]
    return re.compile(rf"(?:.*\.)?{''.join(parts)}")


def _is_iterations(text: str) -> bool:
    match = _ITERATIONS.match(text)
    return match is not None and text != "" and match.group(3) != "0"


@lru_cache(maxsize=512)
def _wanted(text: str, iterations: int) -> frozenset[int]:
    if text == "*":
        return frozenset(range(1, iterations + 1))
    match = _ITERATIONS.match(text)
    assert match is not None  # parse() has checked it
    if ":" not in text:
        single = int(text)
        return frozenset({single if single > 0 else iterations + 1 + single})
    start, stop, step = match.groups()

    def resolve(number: str | None, default: int) -> int:
        if not number:
            return default
        value = int(number)
        return value if value > 0 else iterations + 1 + value

    return frozenset(
        range(max(resolve(start, 1), 1), resolve(stop, iterations + 1), int(step) if step else 1)
    )
