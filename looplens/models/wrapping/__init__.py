"""Looped modules that looplens did not write, seen through forward hooks."""

from looplens.models.wrapping.presets import PRESETS, preset
from looplens.models.wrapping.wrap import wrap
from looplens.models.wrapping.wrapped import WrappedModel

__all__ = ["PRESETS", "WrappedModel", "preset", "wrap"]
