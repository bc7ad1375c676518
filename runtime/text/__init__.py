"""Text of answers: words, stop strings, offsets, token contexts, drafts."""
