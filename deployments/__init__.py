"""Serving: the HTTP face, the Serve deployments behind it, and their wiring. Nothing imports it."""
