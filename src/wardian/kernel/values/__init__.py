"""Values and files between home and nodes."""
