"""A stand-in for a node's WHIP and WHEP, so that the drivers can be tried without one. It decodes and encodes again.

  tests/browser/drive rehearsal/whip_whep.py --port 5992
"""

import itertools
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from aiohttp import web
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaRelay

from lib.driver import options

option = options(__doc__, port=5992)
relay = MediaRelay()
streams = {}
peers = {}
names = itertools.count()
CORS = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Methods": "*", "Access-Control-Allow-Headers": "*",
        "Access-Control-Expose-Headers": "Location, ETag, Link"}


async def answer(request, peer, sdp):
    # Passive in DTLS, as a node is: aiortc as the active side refuses peers with an RSA certificate.
    await peer.setRemoteDescription(RTCSessionDescription(sdp.replace("a=setup:actpass", "a=setup:active"), "offer"))
    for transceiver in peer.getTransceivers():
        track = request.app["wanted"].get(transceiver.kind)
        if track:
            transceiver.sender.replaceTrack(relay.subscribe(track))
            transceiver.direction = "sendonly"
    await peer.setLocalDescription(await peer.createAnswer())
    name = str(next(names))
    peers[name] = peer
    return web.Response(status=201, text=peer.localDescription.sdp, content_type="application/sdp",
                        headers={**CORS, "Location": f"/session/{name}", "ETag": f'"{name}"'})


async def whip(request):
    peer = RTCPeerConnection()
    tracks = streams.setdefault(request.match_info["id"], {})

    @peer.on("track")
    def _track(track):
        tracks[track.kind] = track

    request.app["wanted"].clear()
    return await answer(request, peer, await request.text())


async def whep(request):
    tracks = streams.get(request.match_info["id"])
    if not tracks:
        return web.Response(status=409, headers={**CORS, "Retry-After": "1"})
    request.app["wanted"].update(tracks)
    return await answer(request, RTCPeerConnection(), await request.text())


async def delete(request):
    peer = peers.pop(request.match_info["name"], None)
    if peer:
        await peer.close()
    return web.Response(status=200, headers=CORS)


async def preflight(_request):
    return web.Response(status=204, headers=CORS)


app = web.Application()
app["wanted"] = {}
app.add_routes([
    web.post("/WebRTCAppEE/whip/{id}", whip),
    web.post("/WebRTCAppEE/whep/{id}", whep),
    web.delete("/session/{name}", delete),
    web.options("/{tail:.*}", preflight),
])
web.run_app(app, host="127.0.0.1", port=option.port, print=None)
