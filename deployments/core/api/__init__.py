"""Requests and responses of the REST API."""
