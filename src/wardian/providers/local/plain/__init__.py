"""Nodes of processes alone, for hosts that refuse namespaces: with a directory, variables and a loopback address of their own."""
