"""An index folder as a whole: copies, exports, imports, checks, salvage."""
