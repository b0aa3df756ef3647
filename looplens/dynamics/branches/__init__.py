"""Fixed points as a knob of the loop is turned: branches, and where they lose stability."""
