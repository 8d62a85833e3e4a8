"""Home's side: the process of the home kernel, its magics, and the private socket between it and the router."""
