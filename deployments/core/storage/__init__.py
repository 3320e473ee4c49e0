"""store.sqlite3: what is in it, and how it is read and written."""
