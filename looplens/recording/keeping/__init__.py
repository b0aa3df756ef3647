"""What of a recording is kept: sites, layers, iterations, tokens, dimensions."""
