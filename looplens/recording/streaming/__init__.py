"""From prompts to blocks on disk: forwards, buffers, the writer thread, workers."""
