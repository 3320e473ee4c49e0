"""Measures the quality of the running service's answers: `python -m tests.eval --help`."""
