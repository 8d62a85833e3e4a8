"""A video server for adaptive players: one video in several qualities, cut into segments, over HTTP/1.1 with keep-alive.

    python3 server.py --port 8080

    GET /manifest.json        {"segment_seconds", "segments", "bitrates": [bits a second], "sizes": [[bytes]]}
    GET /LEVEL/SEGMENT        one segment: sizes[LEVEL][SEGMENT] bytes
    GET /meet/NAME?of=COUNT&within=SECONDS
                              answers once COUNT have asked for NAME, so that all go on at the same moment; status 408 if they don't come

As in real video of variable bitrate a segment is larger or smaller than its quality's average, alike in all qualities. The bytes are
random, so that nothing on the way could compress them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import threading
from collections import defaultdict
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

BITRATES = (350_000, 700_000, 1_400_000, 2_400_000, 3_800_000, 5_600_000)
"""Average bits a second of each quality."""
VARIATION = 0.15
"""How far a segment's size swings around its quality's average, as a fraction."""


class Video:
    """One video in several qualities.

    seconds: playing time of one segment. segments: how many there are. bitrates: average bits a second of each quality.
    """

    def __init__(self, seconds: float, segments: int, bitrates: Sequence[int] = BITRATES) -> None:
        self.seconds = seconds
        self.segments = segments
        self.bitrates = list(bitrates)
        self.sizes = [[self._size(bitrate, number) for number in range(segments)] for bitrate in bitrates]
        self._bytes = os.urandom(max(map(max, self.sizes)))

    def manifest(self) -> dict[str, object]:
        """What a player has to know."""
        return {"segment_seconds": self.seconds, "segments": self.segments, "bitrates": self.bitrates, "sizes": self.sizes}

    def segment(self, level: int, number: int) -> memoryview:
        """The bytes of one segment."""
        return memoryview(self._bytes)[: self.sizes[level][number]]

    def _size(self, bitrate: int, number: int) -> int:
        # Two incommensurable waves: scenes that no two segments share, and yet the same in every run.
        scene = (math.sin(1.7 * number) + math.sin(0.6 * number + 1)) / 2
        return round(bitrate * self.seconds / 8 * (1 + VARIATION * scene))


class Meetings:
    """Places where a known number of players wait for each other."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._come: dict[str, int] = defaultdict(int)

    def join(self, name: str, count: int, seconds: float) -> bool:
        """Wait until `count` have joined; whether they did in time. A meeting that is over may be held again."""
        with self._lock:
            self._come[name] += 1
            wanted = math.ceil(self._come[name] / count) * count
            self._lock.notify_all()
            return self._lock.wait_for(lambda: self._come[name] >= wanted, seconds)


class Handler(BaseHTTPRequestHandler):
    """Answers one player's connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    video: Video
    meetings: Meetings

    def do_GET(self) -> None:
        """Manifest, segment or meeting."""
        url = urlsplit(self.path)
        match url.path.strip("/").split("/"):
            case ["manifest.json"]:
                self._answer(json.dumps(self.video.manifest()).encode(), "application/json")
            case ["meet", name] if (count := self._number(url.query, "of")) and (seconds := self._number(url.query, "within")):
                met = self.meetings.join(name, count, seconds)
                self._answer(b"", status=HTTPStatus.OK if met else HTTPStatus.REQUEST_TIMEOUT)
            case [level, number] if self._exists(level, number):
                self._answer(self.video.segment(int(level), int(number)), "video/iso.segment")
            case _:
                self._answer(b"there is no such thing here\n", "text/plain", HTTPStatus.NOT_FOUND)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: the players keep the record."""

    def _number(self, query: str, name: str) -> int:
        value = parse_qs(query).get(name, [""])[0]
        return int(value) if value.isdecimal() else 0

    def _exists(self, level: str, number: str) -> bool:
        return level.isdecimal() and number.isdecimal() and int(level) < len(self.video.bitrates) and int(number) < self.video.segments

    def _answer(self, body: bytes | memoryview, kind: str = "text/plain", status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """The server; `port` 0 takes a free one."""

    daemon_threads = True

    def __init__(self, address: str, port: int, video: Video) -> None:
        super().__init__((address, port), type("VideoHandler", (Handler,), {"video": video, "meetings": Meetings()}))


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description="A video server for adaptive players.")
    parser.add_argument("--address", default="", help="address to listen on (default: all of the node's)")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--segment-seconds", type=float, default=1.0, metavar="SECONDS", help="playing time of a segment")
    parser.add_argument("--segments", type=int, default=600, metavar="COUNT", help="length of the video")
    options = parser.parse_args()
    with Server(options.address, options.port, Video(options.segment_seconds, options.segments)) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
