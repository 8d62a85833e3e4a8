"""The Jupyter kernel: a router that runs each cell on the nodes that it is bound to, or at home in a stock ipykernel."""
