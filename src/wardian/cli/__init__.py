"""The `wardian` command: parses, calls the API, prints."""

from __future__ import annotations

import gc


def main() -> None:
    """Entry point of the `wardian` command."""
    # what is imported stays: to look through it for garbage, at every step and at the end, takes a tenth of a short command's time
    gc.disable()
    from .app import run

    try:
        run()
    finally:
        gc.freeze()
