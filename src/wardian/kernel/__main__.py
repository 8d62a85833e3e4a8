"""Entry point of `python -m wardian.kernel`."""

import sys

from .app import main

sys.exit(main())
