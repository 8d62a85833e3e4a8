"""Cells: where each runs, in which order, on how many places, and what its notebook sees of it."""
