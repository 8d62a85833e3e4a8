"""The frames: what one side writes the other reads, and no bytes crash either."""

from __future__ import annotations

import contextlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardian.nodes import frames
from wardian.nodes.agent import protocol

PARTS = st.lists(st.binary(max_size=200), min_size=4, max_size=8)
MESSAGES = st.builds(
    frames.Message,
    sequence=st.integers(0, 2**64 - 1),
    channel=st.sampled_from(frames.CHANNELS),
    kernel=st.text("abcXYZ019._-", min_size=1, max_size=64),
    parts=PARTS,
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(edges)]


@given(MESSAGES, st.lists(st.integers(0, 5000)))
def test_our_messages_are_read_by_the_agent(message: frames.Message, places: list[int]) -> None:
    """An INPUT frame, cut anywhere, is the same message at the agent."""
    decoder = protocol.Decoder()
    data = frames.encode_message(frames.Kind.INPUT, message)
    found = [frame for piece in cut(data, places) for frame in decoder.feed(piece)]
    assert [kind for kind, _ in found] == [protocol.INPUT]
    sequence, channel, kernel, parts = protocol.unpack_message(found[0][1])
    assert (sequence, frames.CHANNELS[channel], kernel, parts) == message


@given(MESSAGES, st.lists(st.integers(0, 5000)))
def test_the_agents_messages_are_read_by_us(message: frames.Message, places: list[int]) -> None:
    """A MESSAGE frame of the agent, cut anywhere, is the same message here."""
    decoder = frames.Decoder()
    channel = frames.CHANNELS.index(message.channel)
    data = protocol.pack_message(protocol.MESSAGE, message.sequence, channel, message.kernel.encode(), message.parts)
    found = [frame for piece in cut(data, places) for frame in decoder.feed(piece)]
    assert [kind for kind, _ in found] == [frames.Kind.MESSAGE]
    assert frames.decode_message(found[0][1]) == message


@given(st.lists(st.binary(max_size=100)))
def test_no_bytes_crash_a_decoder(pieces: list[bytes]) -> None:
    """Whatever arrives, both decoders give frames or their own error, and agree with each other."""
    ours, theirs = frames.Decoder(), protocol.Decoder()
    for piece in pieces:
        results = []
        for decoder, error in ((ours, frames.FrameError), (theirs, protocol.BadFrame)):
            try:
                results.append([(int(kind), payload) for kind, payload in decoder.feed(piece)])
            except error:
                results.append(None)
        assert results[0] == results[1]
        if results[0] is None:
            return


@given(st.binary(max_size=300))
def test_no_payload_crashes_a_reader(payload: bytes) -> None:
    """Any payload is a message or a JSON object, or refused with the module's own error."""
    for read in (frames.decode_message, frames.decode_json):
        with contextlib.suppress(frames.FrameError):
            read(payload)
    for unpack in (protocol.unpack_message, protocol.unpack_json):
        with contextlib.suppress(protocol.BadFrame):
            unpack(payload)


@pytest.mark.parametrize("data", [b"\0\0\0\0", b"\xff\xff\xff\xff\x01", b"\0\0\0\x01\x08", (frames.FRAME_LIMIT + 1).to_bytes(4, "big")])
def test_frames_outside_the_protocol_are_refused(data: bytes) -> None:
    """A frame that is empty, too long or of an unknown type is an error before its payload is waited for."""
    with pytest.raises(frames.FrameError):
        list(frames.Decoder().feed(data))
    with pytest.raises(protocol.BadFrame):
        list(protocol.Decoder().feed(data))


def test_too_long_a_message_is_refused_here() -> None:
    """What the agent would not take is not sent."""
    message = frames.Message(1, "shell", "k", [b"", b"", b"", b"", bytes(frames.FRAME_LIMIT)])
    with pytest.raises(frames.FrameError, match="at most"):
        frames.encode_message(frames.Kind.INPUT, message)


def test_deep_json_is_refused() -> None:
    """JSON nested past the interpreter's recursion is malformed, not a crash."""
    with pytest.raises(frames.FrameError):
        frames.decode_json(b'{"a":' * 200_000)
