"""What is known of single tokens, whatever it comes from: numbers, words, filters, predictions."""
