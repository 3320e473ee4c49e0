"""Bulk backfill: reads segments from files anywhere and stores them through the running service.

    sources ── readers ── mapping ── grouping ── sender ── destination
    files      rows       segments   calls of    calls in  HTTP, or Serve handles
                                     one item    flight

A new format is a module with a reader (see `rows.Reader`) and a line in `formats.FORMATS`. Another
way to the service is a class with the one method of `destination.Destination`.
"""
