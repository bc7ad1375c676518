"""Configurations, the zoo of tiny models, and clients in ten lines."""
