"""A replay as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .compare.results import plain
from .replaying import Replay


def to_json(found: Replay) -> dict[str, Any]:
    return {"comparison": plain(found.comparison)}


def write(found: Replay, path: Path) -> list[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_json(found)))
    return [path]
