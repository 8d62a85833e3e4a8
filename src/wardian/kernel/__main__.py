"""Entry point of `python -m wardian.kernel`."""

import sys

from .session.preloading import preload

if __name__ == "__main__":
    # before anything else is imported here, so that both load at once
    preloaded = preload()

    from .app import main

    sys.exit(main(preloaded))
