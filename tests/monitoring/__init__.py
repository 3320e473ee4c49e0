"""Tries what cluster/ gives to Prometheus in a real one."""
