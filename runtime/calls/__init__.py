"""Calls of members: messages, remote engines, batching, retries, budget and usage."""
