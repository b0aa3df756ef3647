"""The writing side: blocks that are claimed, written whole and committed."""
