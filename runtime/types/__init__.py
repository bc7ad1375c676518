"""Frozen data classes that cross packages and processes. Costs are in the configured currency,
times in seconds."""
