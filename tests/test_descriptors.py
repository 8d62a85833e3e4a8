"""Files that are open at once: as many as may be, and words for when there are too many."""

from __future__ import annotations

import errno
import subprocess
import sys

from wardian import descriptors

SHOWN = """
import resource
from wardian import descriptors
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 4096))
descriptors.raise_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE))
resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
try:
    held = [open("/dev/null") for _ in range(16)]
except OSError as error:
    print(descriptors.explained(error))
"""


def test_the_limit_is_raised_and_its_end_explained() -> None:
    """The soft limit becomes the hard one; past that, the error says how many files there may be and what to do."""
    done = subprocess.run([sys.executable, "-c", SHOWN], capture_output=True, text=True, check=True, timeout=60)
    raised, said, remedy = done.stdout.splitlines()
    assert raised == "(4096, 4096)"
    assert "this process may have 16 files open" in said
    assert "ulimit -n" in remedy


def test_other_errors_stay_as_they_are() -> None:
    """What is no lack of descriptors is not called one."""
    error = OSError(errno.ENOSPC, "full")
    assert descriptors.explained(error) is error
    assert descriptors.explained(ValueError("x")).args == ("x",)
