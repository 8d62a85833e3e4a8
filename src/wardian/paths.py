"""Where Wardian keeps what is not the user's own (below `WARDIAN_STATE`, or the system's or user's state folder), and who that is."""

from __future__ import annotations

import os
from pathlib import Path


def state_folder() -> Path:
    """`$WARDIAN_STATE`, else /var/lib/wardian for root, else ~/.local/state/wardian. Not created here."""
    chosen = os.environ.get("WARDIAN_STATE")
    if chosen:
        return Path(chosen)
    if os.geteuid() == 0:
        return Path("/var/lib/wardian")
    return Path(os.environ.get("XDG_STATE_HOME", "~/.local/state")).expanduser() / "wardian"


def user_name() -> str:
    """This user's name, or number where the host knows none, as in containers that are started as any user."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
