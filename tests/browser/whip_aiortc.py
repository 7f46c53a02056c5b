"""aiortc publishes by WHIP: the moving pattern and a tone.

  drive whip_aiortc.py --url http://127.0.0.1:5080/WebRTCAppEE/whip/stream1 [--codec VP8|H264] [--seconds 5] [--token T]

Events: `answered`, `connected`. With --seconds 0 it publishes until standard input is closed.
"""

import asyncio

from aiortc import RTCPeerConnection, RTCSessionDescription

from lib.aio import Http, Picture, Tone, prefer
from lib.driver import emit, lasting, options, run

option = options(__doc__, url="", codec="VP8", seconds=5.0, token="", deadline=300.0)


async def main():
    peer = RTCPeerConnection()
    http = Http(option.url, option.token)
    try:
        picture, tone = Picture(), Tone()
        peer.addTransceiver(tone, direction="sendonly")
        prefer(peer.addTransceiver(picture, direction="sendonly"), option.codec)
        connected = asyncio.Event()

        @peer.on("connectionstatechange")
        def _changed():
            if peer.connectionState == "connected":
                connected.set()

        await peer.setLocalDescription(await peer.createOffer())
        answer = await http.post(peer.localDescription.sdp)
        emit("answered", **http.about)
        await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        try:
            await asyncio.wait_for(connected.wait(), 15)
        except asyncio.TimeoutError:
            return {"ok": False, "why": f"not connected after 15 s: {peer.connectionState}", **http.about}
        emit("connected")
        await lasting(option.seconds)
        stats = [report for report in (await peer.getStats()).values() if report.type == "remote-inbound-rtp"]
        state = peer.connectionState
        deleted = await http.close()
        return {
            "ok": state == "connected",
            **http.about,
            "state": state,
            "deleted": deleted,
            "framesSent": picture.sent,
            "soundsSent": tone.sent,
            "reportedLost": sum(report.packetsLost for report in stats),
            "reports": len(stats),
        }
    finally:
        await peer.close()
        await http.leave()


run(option.deadline, main)
