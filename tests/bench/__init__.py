"""Speed of the service beside the design that most people would write."""
