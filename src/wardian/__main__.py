"""`python -m wardian`: the command, of this interpreter."""

from .cli import main

main()
