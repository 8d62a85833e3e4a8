"""The kernels that cells run on: home, and those on nodes with the way there."""
