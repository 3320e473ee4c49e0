"""Text to vectors: models, their exports, and the batches in which texts are encoded."""
