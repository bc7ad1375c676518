"""A method and an engine for Orchestrion."""
