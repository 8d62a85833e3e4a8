"""Towards the notebook's clients: sockets, pace, and pages that open later."""
