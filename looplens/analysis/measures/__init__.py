"""Array functions: numpy in, numpy out, one question a file."""
