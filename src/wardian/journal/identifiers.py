"""Identifiers that sort by the time at which they were made."""

from __future__ import annotations

import random
import threading
import time

_lock = threading.Lock()
_last = 0
_random = random.SystemRandom()


def new_id() -> str:
    """A version 7 UUID (RFC 9562, with its method 3 for the time below a millisecond): later ones of a process sort after earlier ones."""
    global _last
    # 60 bits of time: 48 of milliseconds, 12 of the fraction, about 244 ns each
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    stamp = milliseconds << 12 | (rest << 12) // 1_000_000
    with _lock:
        _last = stamp = max(stamp, _last + 1)
    tail = f"{1 << 63 | _random.getrandbits(62):016x}"
    head = f"{stamp >> 12:012x}"
    return f"{head[:8]}-{head[8:]}-7{stamp & 0xFFF:03x}-{tail[:4]}-{tail[4:]}"
