"""The `wardian` command: parses, calls the API, prints."""

from __future__ import annotations


def main() -> None:
    """Entry point of the `wardian` command."""
    from .app import run

    run()
