"""One file a step; the last one's number is `tables.HEAD`."""
