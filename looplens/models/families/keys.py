"""Reading ``config.json``: required keys, accepted values, and both styles of rotary settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from looplens.errors import InputError


class ConfigKeys:
    """The keys of one ``config.json``.

    Parameters
    ----------
    values : mapping
        Its content.
    family : str
        Named in errors.
    """

    def __init__(self, values: Mapping[str, Any], family: str) -> None:
        self.values = values
        self.family = family

    def need(self, *names: str) -> Any:
        """Return the first of these keys that is there and not null.

        Raises
        ------
        InputError
            If none is.
        """
        for name in names:
            if self.values.get(name) is not None:
                return self.values[name]
        raise InputError(f"the {self.family} configuration lacks {' or '.join(names)}")

    def get(self, name: str, default: Any) -> Any:
        """Return a key, or ``default`` where it is absent or null."""
        value = self.values.get(name)
        return default if value is None else value

    def only(self, name: str, *supported: Any) -> Any:
        """Return a key that may only have certain values; absent stands for the first.

        Raises
        ------
        InputError
            If it has another value: the message names the key and what is supported.
        """
        value = self.values.get(name, supported[0])
        # 0 == False and 1 == True, but null is neither.
        if any(value == option and (value is None) == (option is None) for option in supported):
            return value
        listed = " or ".join(repr(option) for option in supported)
        raise InputError(
            f"unsupported {self.family} configuration: {name} is {value!r}, and only {listed} is "
            "supported"
        )

    def rope(self, default_theta: float | None = None) -> dict[str, Any]:
        """Return the rotary fields of :class:`LoopedConfig`.

        Both styles are read: ``rope_theta`` and ``rope_scaling`` at top level, or everything in
        ``rope_parameters``. A base without default must be there.

        Raises
        ------
        InputError
            If the base is missing, or the scaling is none that is known.
        """
        inner = self.get("rope_parameters", {})
        scaling = {**self.get("rope_scaling", {}), **inner}
        theta = scaling.get("rope_theta") or self.get("rope_theta", default_theta)
        if theta is None:
            raise InputError(f"the {self.family} configuration lacks rope_theta")
        for where in (self.values, inner):
            if where.get("partial_rotary_factor", 1.0) not in (None, 1, 1.0):
                raise self.unsupported("partial_rotary_factor", where, "1.0")
        fields: dict[str, Any] = {"rope_theta": float(theta)}
        kind_key = "rope_type" if "rope_type" in scaling else "type"
        kind = scaling.get(kind_key, "default")
        if kind in (None, "default"):
            return fields
        known: tuple[str, ...] = ("factor",)
        if kind == "llama3":
            known = ("factor", "low_freq_factor", "high_freq_factor")
        elif kind != "linear":
            source = "rope_parameters" if inner else "rope_scaling"
            raise InputError(
                f"unsupported {self.family} configuration: {source}.{kind_key} is {kind!r}, and "
                "only 'default', 'linear' or 'llama3' is supported"
            )
        needed = (*known, "original_max_position_embeddings") if len(known) > 1 else known
        absent = [key for key in needed if scaling.get(key) is None]
        if absent:
            raise InputError(
                f"the {self.family} configuration's {kind} rope scaling lacks {', '.join(absent)}"
            )
        fields["rope_scaling"] = kind
        fields |= {f"rope_{key}": float(scaling[key]) for key in known}
        if kind == "llama3":
            fields["rope_original_n_ctx"] = int(scaling["original_max_position_embeddings"])
        return fields

    def unsupported(self, name: str, where: Mapping[str, Any], supported: str) -> InputError:
        """Make the error for a value that is not supported."""
        return InputError(
            f"unsupported {self.family} configuration: {name} is {where[name]!r}, and only "
            f"{supported} is supported"
        )

    def no_sliding_window(self) -> None:
        """Refuse attention windows that would be in use.

        Raises
        ------
        InputError
            If a window is shorter than the context, or a layer type is not full attention.
        """
        kinds = set(self.get("layer_types", ()))
        if kinds - {"full_attention"}:
            raise InputError(
                f"unsupported {self.family} configuration: layer_types names "
                f"{', '.join(sorted(kinds - {'full_attention'}))}, and only full_attention is "
                "supported"
            )
        if self.values.get("use_sliding_window") is False or kinds:
            return
        window = self.values.get("sliding_window")
        context = self.get("max_position_embeddings", 0)
        if window is not None and (self.get("use_sliding_window", False) or window < context):
            raise self.unsupported("sliding_window", self.values, "null (full attention)")
