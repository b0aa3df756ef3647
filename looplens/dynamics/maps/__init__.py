"""The loop as a map of states: values, derivatives, one token or the whole sequence."""
