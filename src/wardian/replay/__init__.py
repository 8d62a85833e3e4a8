"""Runs of notebooks: recorded, replayed and compared, swept, locked, packed and reported."""

import sys

# jsonschema, which nbformat imports, takes this module for addresses with other letters than ASCII, and goes without where there is none.
# No notebook's schema has such addresses, and to load it takes ten times as long as all else: it compiles a grammar.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
