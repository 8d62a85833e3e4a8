"""What `ssh` starts to ask its user something (SSH_ASKPASS): passes the question on to the Wardian process that started `ssh`.

Needs the standard library alone, and is run as a program. Exits with 1 where there is no answer.
"""

from __future__ import annotations

import json
import os
import socket
import sys


def main() -> int:
    """Print the answer to the question that is the first argument."""
    question = {"text": sys.argv[1] if len(sys.argv) > 1 else "", "kind": os.environ.get("SSH_ASKPASS_PROMPT", "")}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(os.environ["WARDIAN_ASKPASS"])
        connection.sendall(json.dumps(question).encode() + b"\n")
        with connection.makefile("rb") as stream:
            line = stream.readline()
    answer = json.loads(line)["answer"] if line else None
    if answer is None:
        return 1
    sys.stdout.buffer.write(answer.encode() + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
