"""The pages of the documentation are tests too: see ``tests/code_blocks.py``."""

from code_blocks import SYBIL

pytest_collect_file = SYBIL.pytest()
