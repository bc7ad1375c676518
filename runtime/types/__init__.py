"""Plain frozen data that travels between rooms and processes. Costs are in the configured currency,
times in seconds."""
