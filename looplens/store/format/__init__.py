"""What a run consists of: arrays, blocks, and what is known before its first number."""
