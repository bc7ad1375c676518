"""The OpenAI-compatible endpoint: bodies in, queries out; events in, replies and streams out."""
