"""Tests of, and against, the OpenStack that scripts/openstack-testbed runs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
