"""What the journal has of cells: written while they run, taken up after a kernel died, shown again."""
