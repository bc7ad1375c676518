"""The embedded engine: transformers with continuous batching and a prefix cache."""
