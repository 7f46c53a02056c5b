"""What the aiortc drivers share: the picture and the tone they send, and the HTTP side of WHIP and WHEP."""

import asyncio
import fractions
import math
import struct
import time
from urllib.parse import urljoin

import aiohttp
import av
from aiortc import AudioStreamTrack, RTCRtpSender, VideoStreamTrack

from lib.driver import PATTERN_HEIGHT, PATTERN_WIDTH, Watcher, pattern


def video_frame(number):
    frame = av.VideoFrame(PATTERN_WIDTH, PATTERN_HEIGHT, "rgb24")
    frame.planes[0].update(pattern(number))
    return frame.reformat(format="yuv420p")


def audio_frame(start, samples, rate=48000):
    """A tone of 440 Hz, stereo."""
    frame = av.AudioFrame("s16", "stereo", samples)
    frame.sample_rate = rate
    values = (int(8000 * math.sin(2 * math.pi * 440 * n / rate)) for n in range(start, start + samples))
    frame.planes[0].update(b"".join(struct.pack("<hh", value, value) for value in values))
    frame.pts = start
    frame.time_base = fractions.Fraction(1, rate)
    return frame


class Picture(VideoStreamTrack):
    """The moving pattern at 30 pictures a second."""

    def __init__(self):
        super().__init__()
        self.sent = 0

    async def recv(self):
        pts, time_base = await self.next_timestamp()
        frame = video_frame(self.sent)
        frame.pts, frame.time_base = pts, time_base
        self.sent += 1
        return frame


class Tone(AudioStreamTrack):
    """The tone in packets of 20 ms."""

    def __init__(self):
        super().__init__()
        self.sent = 0
        self._begun = None

    async def recv(self):
        self._begun = self._begun or time.monotonic()
        await asyncio.sleep(max(0.0, self._begun + self.sent * 0.02 - time.monotonic()))
        frame = audio_frame(self.sent * 960, 960)
        self.sent += 1
        return frame


def prefer(transceiver, codec):
    """Offers `codec` alone, with its retransmissions."""
    if not codec:
        return
    wanted = [c for c in RTCRtpSender.getCapabilities("video").codecs if c.mimeType.lower() == f"video/{codec.lower()}"]
    if not wanted:
        raise ValueError(f"aiortc has no {codec}")
    rtx = [c for c in RTCRtpSender.getCapabilities("video").codecs if c.mimeType.lower() == "video/rtx"]
    transceiver.setCodecPreferences(wanted + rtx)


class Http:
    """One WHIP or WHEP session over HTTP."""

    def __init__(self, url, token):
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = aiohttp.ClientSession()
        self.session = None
        self.about = {}

    async def post(self, sdp):
        """Sends the offer; returns the answer. Raises with the server's words when it is refused."""
        headers = {**self._headers, "Content-Type": "application/sdp"}
        async with self._client.post(self._url, data=sdp, headers=headers) as response:
            body = await response.text()
            self.about = {
                "status": response.status,
                "headers": {
                    name: response.headers.get(name)
                    for name in ("Location", "ETag", "Content-Type", "Link", "Retry-After")
                },
            }
            if response.status != 201:
                raise ValueError(f"status {response.status}: {body[:300]}")
            location = response.headers.get("Location")
            self.session = urljoin(str(response.url), location) if location else None
            return body

    async def close(self):
        """Deletes the session; returns the status, or None when there was none."""
        status = None
        if self.session:
            async with self._client.delete(self.session, headers=self._headers) as response:
                status = response.status
        return status

    async def leave(self):
        await self._client.close()


async def watch_video(track, watcher):
    """Decodes until the track ends."""
    while True:
        frame = await track.recv()
        small = frame.reformat(width=Watcher.WIDTH, height=Watcher.HEIGHT, format="rgb24")
        plane = small.planes[0]
        watcher.see(bytes(plane), plane.line_size)


class Listener:
    """Counts decoded sound and its loudest sample."""

    def __init__(self):
        self.frames = 0
        self.peak = 0

    async def listen(self, track):
        while True:
            frame = await track.recv()
            data = bytes(frame.planes[0])
            self.frames += 1
            samples = struct.unpack(f"<{len(data) // 2}h", data)
            self.peak = max(self.peak, max(samples, default=0))
