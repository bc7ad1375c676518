"""Tiny real LLMs, trained here in minutes, that each know one relation of the world."""
