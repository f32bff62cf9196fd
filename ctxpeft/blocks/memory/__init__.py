"""Memories: what a context module asks."""
