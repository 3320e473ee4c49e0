"""One index folder that is open: its store and its vectors behind one door."""
