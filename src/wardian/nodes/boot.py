"""The agent's way to a node: its modules as one text, and the program there that takes and runs them."""

from __future__ import annotations

import json
from importlib.resources import files

SOURCE = json.dumps(
    {
        f"wardian_agent.{path.name[:-3]}".replace(".__init__", ""): path.read_text()
        for path in sorted(files(f"{__package__}.agent").iterdir(), key=lambda path: path.name)
        if path.name.endswith(".py")
    }
).encode()
"""The agent's modules: {name: text}."""

# modules are compiled when they are imported: most of them only where the agent does not run yet
LOAD = """
import json
from _frozen_importlib import ModuleSpec
class Modules:
    def __init__(self, texts):
        self.texts = texts
    def find_spec(self, name, path=None, target=None):
        if name in self.texts:
            return ModuleSpec(name, self, is_package=name == "wardian_agent")
    def create_module(self, spec):
        pass
    def exec_module(self, module):
        exec(compile(self.texts[module.__name__], module.__name__, "exec"), module.__dict__)
sys.meta_path.insert(0, Modules(json.loads(source.decode())))
from wardian_agent.start import bootstrap
"""
"""Makes what `source` holds importable."""

# takes exactly the source from its standard input: what follows there is for the agent
BOOT = (
    """
import os, sys
def take(count):
    data = b""
    while len(data) < count:
        more = os.read(0, count - len(data))
        if not more:
            sys.exit("the source of the agent was cut short")
        data += more
    return data
sys.path = [path for path in sys.path if path]
boot, others = sys.argv[1:2], sys.argv[2:]
if sys.version_info < (3, 8):
    for other in others:
        try:
            os.execvp(other, [other, "-c"] + boot + boot + others[others.index(other) + 1:])
        except OSError:
            pass
    sys.exit("%s is Python %s, and the agent needs 3.8" % (sys.executable, sys.version.split()[0]))
source = take(int(take(8), 16))
"""
    + LOAD
    + "bootstrap(source)\n"
)
