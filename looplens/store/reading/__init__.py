"""The reading side: an opened run, checked reads, stored results, verification."""
