"""Changes to a forward, said by coordinates: which site, passes, tokens and heads, and what to do.

An :class:`Intervention` is a plain value that can be checked, described and stored with a
run. It does nothing by itself: :mod:`looplens.recording.changing.applying` makes hooks of it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias, get_args

from torch import Tensor

from looplens.errors import InputError, SiteError
from looplens.loops import SiteAddress
from looplens.recording.changing.donors import DonorLike, as_donor, described_tensor
from looplens.recording.changing.selecting import Selection, described_selection

Kind = Literal["replace", "add", "noise", "ablate", "clamp"]
Mode = Literal["zero", "mean"]
Value: TypeAlias = "Tensor | float"


@dataclass(frozen=True, kw_only=True, eq=False)
class Intervention:
    """One change to the activations of a forward.

    Made by :meth:`replace`, :meth:`add`, :meth:`noise`, :meth:`ablate` and :meth:`clamp`. All take

    address : str
        Sites and passes: ``core.2.hook_resid_post@7`` is one pass, ``core.*.attn.hook_z@7:`` every
        pass from the seventh on. ``hook_state`` is the state of the loop itself, what the next
        pass is fed. Pass 0 is no activation: give ``initial_state`` instead.
    tokens : int, sequence of int, or slice, optional
        Positions in the sequence, all by default; negative ones count from its end. Of attention
        maps, the queries. While generating they count in the whole text, and a slice may name
        tokens that are yet to come.
    heads : int, sequence of int, or slice, optional
        Heads, all by default; only at sites that have them (q, k, v, z, pattern, attn_scores;
        k and v have the heads of keys and values).

    A value has the shape of what it stands for: ``[d_model]``, ``[batch, d_model]`` for one token,
    ``[batch, tokens, d_model]`` for several, or anything that broadcasts to it. An int drops its
    axis, as it does in indexing. A value that has the shape of the whole activation is taken at
    the same tokens and heads.

    Raises
    ------
    InputError
        If something of it cannot be.
    SiteError
        If the address is none.

    Examples
    --------
    >>> import looplens as ll
    >>> from looplens.recording import Intervention, hooks_for
    >>> model = ll.load_model("affine-huginn-mini")
    >>> nudge = Intervention.add("hook_state@3", 0.5, tokens=-1)
    >>> logits = model.run_with_hooks("3+4*2", fwd_hooks=hooks_for([nudge], model))
    """

    address: str
    kind: Kind
    value: Value | None = None
    mode: Mode | None = None
    donor: DonorLike | None = None
    prompt: int | None = None
    restart: int = 0
    donor_tokens: Selection = None
    size: float | None = None
    seed: int = 0
    tokens: Selection = None
    heads: Selection = None

    @classmethod
    def replace(
        cls, address: str, value: Value, *, tokens: Selection = None, heads: Selection = None
    ) -> Intervention:
        """Put ``value`` in the place of the activation, the same in every pass that is meant."""
        return cls(address=address, kind="replace", value=value, tokens=tokens, heads=heads)

    @classmethod
    def add(
        cls, address: str, value: Value, *, tokens: Selection = None, heads: Selection = None
    ) -> Intervention:
        """Add ``value`` to the activation, in every pass that is meant."""
        return cls(address=address, kind="add", value=value, tokens=tokens, heads=heads)

    @classmethod
    def noise(
        cls,
        address: str,
        size: float = 0.1,
        *,
        seed: int = 0,
        tokens: Selection = None,
        heads: Selection = None,
    ) -> Intervention:
        """Add noise: at every token a random direction, as long as ``size`` times what is there.

        The direction depends on the seed, the pass and the token alone: a token gets the same one
        in every batch, whichever others are changed.

        Parameters
        ----------
        address, tokens, heads
            See :class:`Intervention`; attention maps and scores take no noise.
        size : float
            Length of the noise over the norm of the token's activation, of the chosen heads.
        seed : int
            Of the directions.
        """
        return cls(address=address, kind="noise", size=size, seed=seed, tokens=tokens, heads=heads)

    @classmethod
    def ablate(
        cls,
        address: str,
        mode: Mode = "zero",
        *,
        donor: DonorLike | None = None,
        prompt: int | None = None,
        restart: int = 0,
        tokens: Selection = None,
        heads: Selection = None,
    ) -> Intervention:
        """Take the activation's information away.

        Parameters
        ----------
        address, tokens, heads
            See :class:`Intervention`.
        mode : {"zero", "mean"}
            Put zeros there, or the mean. Without a donor that is the mean over the positions of
            the same sequence in the same pass, later ones included; with one it is the mean over
            all sequences and positions of the donor in that pass, which lets nothing through.
        donor, prompt, restart : optional
            As in :meth:`clamp`, for ``mode="mean"``.
        """
        return cls(
            address=address,
            kind="ablate",
            mode=mode,
            donor=donor,
            prompt=prompt,
            restart=restart,
            tokens=tokens,
            heads=heads,
        )

    @classmethod
    def clamp(
        cls,
        address: str,
        donor: DonorLike,
        *,
        prompt: int | None = None,
        restart: int = 0,
        tokens: Selection = None,
        heads: Selection = None,
        donor_tokens: Selection = None,
    ) -> Intervention:
        """Hold the activation to what it was in another forward, pass by pass.

        Parameters
        ----------
        address, tokens, heads
            See :class:`Intervention`.
        donor : Tensor, LoopCache, Trace or Run
            Pass ``t`` takes the donor's pass ``t``. A tensor is [iteration, batch, pos, ...] with
            pass 1 in row 0; a Trace holds ``hook_state``, ``core.*.hook_resid_post`` and where
            recorded ``core.*.attn.hook_pattern``; a Run these and what else was recorded.
        prompt, restart : int, optional
            Of a run.
        donor_tokens : int, sequence of int, or slice, optional
            The positions to take from the donor, as many as ``tokens`` names; by default
            ``tokens`` again, counted in the donor's own sequence.
        """
        return cls(
            address=address,
            kind="clamp",
            donor=donor,
            prompt=prompt,
            restart=restart,
            donor_tokens=donor_tokens,
            tokens=tokens,
            heads=heads,
        )

    def __post_init__(self) -> None:
        address = SiteAddress.parse(self.address)
        object.__setattr__(self, "address", str(address))
        if address.iterations in ("0", "-0"):
            raise SiteError(
                f"{self.address!r} names pass 0, which is the initial state and no activation: "
                "pass initial_state= to the forward instead"
            )
        if self.kind not in get_args(Kind):
            raise InputError(f"kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        if self.kind in ("replace", "add") and not _is_value(self.value):
            raise InputError(
                f"{self.kind} needs a number or a tensor, got {type(self.value).__name__}"
            )
        if self.kind == "noise" and not (_is_number(self.size) and 0 < float(self.size or 0) < 1e6):
            raise InputError(
                f"noise needs a size above 0, in norms of what it is added to; got {self.size!r}"
            )
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise InputError(f"seed must be a whole number, got {self.seed!r}")
        if self.kind == "ablate" and self.mode not in get_args(Mode):
            raise InputError(f"ablate mode must be 'zero' or 'mean', got {self.mode!r}")
        if self.donor is not None and self.mode == "zero":
            raise InputError("ablating to zero takes no donor: did you mean mode='mean'?")
        if self.kind == "clamp" or self.donor is not None:
            as_donor(self.donor, prompt=self.prompt, restart=self.restart)  # type: ignore[arg-type]
        for name in ("tokens", "heads", "donor_tokens"):
            described_selection(getattr(self, name), name)

    def describe(self) -> dict[str, Any]:
        """Return everything of it in values that JSON can hold; tensors by shape and digest."""
        said: dict[str, Any] = {"kind": self.kind, "address": self.address}
        for name in ("tokens", "heads", "donor_tokens"):
            chosen = described_selection(getattr(self, name), name)
            if chosen is not None:
                said[name] = chosen
        if self.mode is not None:
            said["mode"] = self.mode
        if self.size is not None:
            said |= {"size": float(self.size), "seed": self.seed}
        if isinstance(self.value, Tensor):
            said["value"] = described_tensor(self.value)
        elif self.value is not None:
            said["value"] = float(self.value)
        if self.donor is not None:
            said["donor"] = as_donor(
                self.donor, prompt=self.prompt, restart=self.restart
            ).describe()
        return said

    def __repr__(self) -> str:
        shown = (
            f"{field.name}={value if not isinstance(value, Tensor) else tuple(value.shape)!r}"
            for field in fields(self)
            if field.name not in ("address", "kind")
            and (value := getattr(self, field.name)) is not None
            and not (field.name == "restart" and self.donor is None)
            and not (field.name == "seed" and self.size is None)
        )
        return f"Intervention.{self.kind}({', '.join([repr(self.address), *shown])})"


def _is_value(value: object) -> bool:
    return isinstance(value, Tensor) or _is_number(value)


def _is_number(value: object) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool)
