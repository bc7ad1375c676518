"""One tokenizer with the exact bytes of its tokens, chat templates and split points."""
