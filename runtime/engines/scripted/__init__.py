"""Scripted engines for tests and demonstrations, and fault injection."""
