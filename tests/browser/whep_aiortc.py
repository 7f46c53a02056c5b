"""aiortc watches by WHEP and decodes what comes.

  drive whep_aiortc.py --url http://127.0.0.1:5081/WebRTCAppEE/whep/stream1 [--codec VP8|H264] [--seconds 5] [--token T]

Events: `answered`, `playing` (the first decoded picture). With --seconds 0 it watches until standard input is closed.
"""

import asyncio

from aiortc import MediaStreamError, RTCPeerConnection, RTCSessionDescription

from lib.aio import Http, Listener, prefer, watch_video
from lib.driver import Watcher, emit, lasting, options, run

option = options(__doc__, url="", codec="", seconds=5.0, token="", start_deadline=20.0, deadline=300.0)


async def main():
    peer = RTCPeerConnection()
    http = Http(option.url, option.token)
    watcher, listener = Watcher(), Listener()
    tasks = []

    async def until_ended(coroutine):
        try:
            await coroutine
        except MediaStreamError:
            pass

    @peer.on("track")
    def _track(track):
        coroutine = watch_video(track, watcher) if track.kind == "video" else listener.listen(track)
        tasks.append(asyncio.ensure_future(until_ended(coroutine)))

    try:
        peer.addTransceiver("audio", direction="recvonly")
        prefer(peer.addTransceiver("video", direction="recvonly"), option.codec)
        await peer.setLocalDescription(await peer.createOffer())
        answer = await http.post(peer.localDescription.sdp)
        emit("answered", **http.about)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        while watcher.frames == 0:
            if loop.time() - begun > option.start_deadline:
                why = f"no picture: {peer.connectionState}"
                return {"ok": False, "why": why, "sounds": listener.frames, **http.about}
            await asyncio.sleep(0.02)
        first_ms = round((loop.time() - begun) * 1000)
        emit("playing", firstFrameMs=first_ms)
        await lasting(option.seconds)
        deleted = await http.close()
        return {
            **http.about,
            **watcher.report(),
            "firstFrameMs": first_ms,
            "sounds": listener.frames,
            "soundPeak": listener.peak,
            "deleted": deleted,
        }
    finally:
        for task in tasks:
            task.cancel()
        await peer.close()
        await http.leave()


run(option.deadline, main)
