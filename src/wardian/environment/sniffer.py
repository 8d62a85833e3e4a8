"""Writes the packets of an interface to standard output as a pcap file. Runs on a node that has no tcpdump; standard library only.

    python3 -c SOURCE INTERFACE FILTER

INTERFACE "any" is all of them, then without their link layer's header. FILTER is classic BPF as `tcpdump -ddd` prints it, commas in
place of line ends, or empty. The SSH connection that this runs over, by $SSH_CONNECTION, is left out: each of its packets would bring
about further ones. Ends at SIGINT or SIGTERM, and says on standard error what the kernel had to drop.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Iterator

SNAP = 262144
ETHERNET, COOKED = 1, 113
SO_ATTACH_FILTER, SO_RCVBUFFORCE, SO_TIMESTAMPNS = 26, 33, 35
SOL_PACKET, PACKET_STATISTICS = 263, 6
ETH_P_ALL = 3


def main() -> None:
    interface, program = sys.argv[1:]
    cooked = interface == "any"
    kind, protocol = (socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)) if cooked else (socket.SOCK_RAW, 0)
    packets = socket.socket(socket.AF_PACKET, kind, protocol)
    try:
        packets.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 25)
    except PermissionError:
        # containers have no CAP_NET_ADMIN; what the kernel gives everybody then has to do
        packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 25)
    packets.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    attach(packets, program)
    if not cooked:
        # nothing comes before it is bound, so nothing comes that the filter did not see
        packets.bind((interface, ETH_P_ALL))
    packets.setblocking(False)
    awake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    write(struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, SNAP, COOKED if cooked else ETHERNET))
    own = connection(os.environ.get("SSH_CONNECTION", ""))
    ended = False
    while not ended:
        ready, _, _ = select.select([packets.fileno(), awake], [], [])
        ended = awake in ready
        write(b"".join(waiting(packets, cooked, own)))
    _, dropped = struct.unpack("II", packets.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    sys.stderr.write(f"{dropped} packets dropped by kernel\n")


def connection(text: str) -> frozenset[bytes]:
    """The addresses and ports of a TCP connection, `CLIENT PORT SERVER PORT`, as packets of either direction have them in a row."""
    words = text.split()
    if len(words) != 4:
        return frozenset()
    family = socket.AF_INET6 if ":" in words[0] else socket.AF_INET
    client, server = (socket.inet_pton(family, words[each].partition("%")[0]) for each in (0, 2))
    there, here = (struct.pack("!H", int(words[each])) for each in (1, 3))
    return frozenset((client + server + there + here, server + client + here + there))


def ends(packet: bytes, protocol: int) -> bytes:
    """The same of a packet, without its link layer's header; nothing of one that is no TCP."""
    if protocol == 0x0800 and len(packet) >= 20 and packet[9] == socket.IPPROTO_TCP:
        start = (packet[0] & 15) * 4
        return packet[12:20] + packet[start : start + 4]
    if protocol == 0x86DD and len(packet) >= 40 and packet[6] == socket.IPPROTO_TCP:
        return packet[8:44]
    return b""


def waiting(packets: socket.socket, cooked: bool, own: frozenset[bytes]) -> Iterator[bytes]:
    """The records of the packets that wait, but not more than fit into some memory."""
    for _ in range(1024):
        try:
            data, ancillary, _, address = packets.recvmsg(SNAP, 256)
        except OSError:
            # none is left; or the interface went down, and it will be back
            return
        protocol, kind, hardware, place = address[1:5]
        if own and ends(data if cooked else data[14:], protocol) in own:
            continue
        header = struct.pack("!HHH8sH", kind, hardware, len(place), place, protocol) if cooked else b""
        seconds = nanoseconds = 0
        for _, option, value in ancillary:
            if option == SO_TIMESTAMPNS:
                seconds, nanoseconds = struct.unpack("ll", value)
        size = len(header) + len(data)
        yield struct.pack("=IIII", seconds, nanoseconds, size, size) + header + data


def attach(packets: socket.socket, program: str) -> None:
    lines = [[int(word) for word in line.split()] for line in program.split(",")[1:] if line]
    if lines:
        code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in lines))
        packets.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(lines), ctypes.addressof(code)))


def write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


main()
