"""Exports of training for serving: file format, perceptrons, token routers, hot reload."""
