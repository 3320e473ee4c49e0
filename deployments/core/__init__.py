"""What the service does, without Ray and without a web framework."""
