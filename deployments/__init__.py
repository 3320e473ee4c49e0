"""Semantic search over transcript segments, frames and clips, on Ray Serve."""

__version__ = "0.1.0"
