"""`wardian plan --exit-code`, with a memory provider that holds what is in a file: `python -m benchmarks.plan_process FILE STORED`."""

import pickle
import sys
from pathlib import Path

from wardian.cli import main
from wardian.providers import registry
from wardian.providers.memory import MemoryCloud, MemoryProvider

file, stored = sys.argv[1:]
cloud = MemoryCloud()
cloud._environments = pickle.loads(Path(stored).read_bytes())
registry.make = lambda name, settings=None: MemoryProvider(cloud=cloud)
registry.names = lambda: ["memory"]
registry.settings_models = lambda: {"memory": MemoryProvider.Settings}
sys.argv = ["wardian", "plan", "--exit-code", "-f", file]
main()
