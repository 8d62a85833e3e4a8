"""What a user asks for: the model, the file, selectors, and the plan from what exists to what is wanted. Pure: no I/O."""
