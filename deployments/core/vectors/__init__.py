"""Vectors in memory and in checkpoints, and exact and approximate search in them."""
