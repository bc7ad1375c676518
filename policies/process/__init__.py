"""Methods that combine models step by step of a chain of reasoning."""
