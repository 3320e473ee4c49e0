"""Lies in the package `tests`, so that pytest lets tests import `tests.fakes`."""
