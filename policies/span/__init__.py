"""Span level: propose -> cross-score -> select -> commit."""
