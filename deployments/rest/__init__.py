"""HTTP: routes, middlewares and documents, over backends that others provide."""
