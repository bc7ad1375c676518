"""Gymnasium environments and RLlib training."""
