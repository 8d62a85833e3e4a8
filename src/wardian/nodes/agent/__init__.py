"""The agent: one process on a node that owns the node's kernels and services, and outlives whoever started it.

These modules are sent to the node and run there (`nodes/boot.py`), so they stand alone: Python 3.8 or newer and the standard library.
`docs/protocol.md` describes what the agent speaks. It is one thread around one epoll loop: nothing here blocks, and nothing is kept
without a bound.
"""
