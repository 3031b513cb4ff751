"""h2 as both ends of HTTP/2 use it: streams are reset once, and the ends judge messages, so that a bad one costs its stream alone."""

from collections.abc import Iterable
from typing import cast

import h2.connection
import h2.events
import h2.stream
from h2.stream import StreamClosedBy, StreamInputs
from h2.utilities import is_informational_response
from hyperframe.frame import Frame, RstStreamFrame

from proxy.contract.head import Header


class Frames(h2.connection.H2Connection):
    """h2, with streams that leave it to the ends to judge messages, and that are reset once."""

    _late = False  # what is being received belongs to a stream that we have reset

    def _receive_frame(self, frame: Frame) -> list[h2.events.Event]:
        self._late = self._stream_closed_by(frame.stream_id) is StreamClosedBy.SEND_RST_STREAM
        return super()._receive_frame(frame)

    def _prepare_for_sending(self, frames: list[Frame]) -> None:
        """What was under way when we reset a stream is dropped (RFC 9113 §5.1): h2 would reset it again for each frame, as floods do."""
        if self._late:
            self._late = False
            frames = [frame for frame in frames if not isinstance(frame, RstStreamFrame)]
        super()._prepare_for_sending(frames)

    def _begin_new_stream(
        self, stream_id: int, allowed_ids: h2.connection.AllowedStreamIDs
    ) -> h2.stream.H2Stream:
        stream = super()._begin_new_stream(stream_id, allowed_ids)
        stream.__class__ = _Messages
        return stream


class _Messages(h2.stream.H2Stream):
    """A stream that takes frames in an order that no message has, and bodies of any length.

    What ends the connection in h2 is an error of one stream (RFC 9113 §8.1.1): the ends find it in the events, and reset the stream.
    """

    def receive_headers(
        self, headers: Iterable[Header], end_stream: bool, header_encoding: bool | str | None
    ) -> tuple[list[Frame], list[h2.events.Event]]:
        """What comes to a client before the answer's head is informational if it says so; after a head come trailers, again and again."""
        machine = self.state_machine
        is_interim = machine.client and not machine.headers_received and not end_stream
        if is_interim and is_informational_response(headers):
            events = machine.process_input(StreamInputs.RECV_INFORMATIONAL_HEADERS)
        else:
            machine.trailers_received = False
            events = machine.process_input(StreamInputs.RECV_HEADERS)
        block = cast("h2.events.ResponseReceived", events[0])
        block.headers = list(headers)
        if end_stream:
            events += machine.process_input(StreamInputs.RECV_END_STREAM)
            block.stream_ended = cast("h2.events.StreamEnded", events[-1])
        return [], events

    def receive_data(
        self, data: bytes, end_stream: bool, flow_control_len: int
    ) -> tuple[list[Frame], list[h2.events.Event]]:
        """Also before an answer's head."""
        self.state_machine.headers_received = True
        return super().receive_data(data, end_stream, flow_control_len)

    def _track_content_length(self, length: int, end_stream: bool) -> None:
        """`Http2End.take` counts."""
