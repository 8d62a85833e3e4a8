"""Source run once in each Python kernel, so that its `In[n]`, `Out[n]` and tracebacks count as the notebook does, and home's
history has the cells that ran on nodes.

The router numbers the cells of all places with one count and sends it along in the request's metadata.
"""

SOURCE = """
def _wardian_align():
    import sys
    shell = get_ipython()
    kernel = getattr(shell, "kernel", None)
    if not hasattr(kernel, "get_parent") or hasattr(kernel, "_wardian_aligned"):
        return
    before = kernel.pre_handler_hook
    def pre_handler_hook():
        before()
        try:
            told = kernel.get_parent("shell")["metadata"]["wardian"]
            number, cells = told.get("number", 0), told.get("cells", ())
        except (AttributeError, KeyError, TypeError):
            return
        history = shell.history_manager
        def fill(number):
            # In[n] is the n-th entry of these lists
            for inputs in (history.input_hist_parsed, history.input_hist_raw):
                inputs.extend([""] * (number - len(inputs)))
        # They wake the thread that writes them once, along with the cell that brings them.
        kept, history.db_cache_size = history.db_cache_size, sys.maxsize
        for earlier, source in cells:
            fill(earlier)
            history.store_inputs(earlier, source, source)
        history.db_cache_size = kept
        fill(number)
        # Never back: IPython's history has each number once, and a kernel may be older than the notebook's count.
        shell.execution_count = max(number, shell.execution_count)
    kernel.pre_handler_hook = pre_handler_hook
    kernel._wardian_aligned = True
_wardian_align()
del _wardian_align
"""
