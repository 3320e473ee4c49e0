"""What runs beside the service: its command line."""
