"""FFmpeg's own WHIP muxer publishes: the moving pattern in H.264 (baseline, no B frames) and a tone in Opus.

  drive whip_ffmpeg.py --url http://127.0.0.1:5080/WebRTCAppEE/whip/stream1 [--seconds 5] [--token T] [--dtls-active 1]

Events: `connected` (the muxer has done ICE and DTLS). FFmpeg runs inside this process, through PyAV.
With --seconds 0 it publishes until standard input is closed.
"""

import asyncio
import fractions
import os
import subprocess
import tempfile
import time

import av

from lib.aio import audio_frame, video_frame
from lib.driver import PATTERN_HEIGHT, PATTERN_WIDTH, emit, lasting, on_thread, options, run

option = options(__doc__, url="", seconds=5.0, token="", dtls_active=0, bitrate=800_000, deadline=300.0)

RATE = 30
SAMPLES = 960


def certificate(directory):
    """A P-256 certificate: the only kind the muxer takes."""
    key, cert = os.path.join(directory, "key.pem"), os.path.join(directory, "cert.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=driver", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )
    return {"key_file": key, "cert_file": cert}


def publish(stopped, connected):
    """Blocks; runs on a thread of its own. Returns what was sent."""
    sent = {"framesSent": 0, "soundsSent": 0, "bytesSent": 0}
    with tempfile.TemporaryDirectory() as directory:
        chosen = certificate(directory)
        if option.token:
            chosen["authorization"] = option.token
        if option.dtls_active:
            chosen["whip_flags"] = "dtls_active"
        with av.open(option.url, "w", format="whip", options=chosen) as out:
            video = out.add_stream("libx264", rate=RATE)
            video.width, video.height, video.pix_fmt = PATTERN_WIDTH, PATTERN_HEIGHT, "yuv420p"
            video.bit_rate = option.bitrate
            video.options = {
                "profile": "baseline", "preset": "ultrafast", "tune": "zerolatency", "bf": "0", "g": str(2 * RATE),
            }
            audio = out.add_stream("libopus", rate=48000, layout="stereo")
            out.start_encoding()
            connected()
            begun = time.monotonic()
            while not stopped():
                elapsed = time.monotonic() - begun
                # The muxer sends what it gets at once, so this loop keeps the pace.
                if sent["framesSent"] / RATE <= elapsed:
                    frame = video_frame(sent["framesSent"])
                    frame.pts, frame.time_base = sent["framesSent"], fractions.Fraction(1, RATE)
                    packets = video.encode(frame)
                    sent["framesSent"] += 1
                elif sent["soundsSent"] * SAMPLES / 48000 <= elapsed:
                    packets = audio.encode(audio_frame(sent["soundsSent"] * SAMPLES, SAMPLES))
                    sent["soundsSent"] += 1
                else:
                    time.sleep(0.003)
                    continue
                for packet in packets:
                    sent["bytesSent"] += packet.size
                    out.mux(packet)
    return sent


async def main():
    loop = asyncio.get_running_loop()
    connected = asyncio.Event()
    flag = {"over": False}
    worker = on_thread(publish, lambda: flag["over"], lambda: loop.call_soon_threadsafe(connected.set))
    try:
        waiting = asyncio.ensure_future(connected.wait())
        await asyncio.wait({waiting, worker}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        if worker.done():
            waiting.cancel()
            return worker.result()
        if not connected.is_set():
            return {"ok": False, "why": "the muxer did not connect within 20 s"}
        emit("connected")
        ending = asyncio.ensure_future(lasting(option.seconds))
        await asyncio.wait({ending, worker}, return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
    finally:
        flag["over"] = True
    return await worker


av.logging.set_level(av.logging.ERROR)
run(option.deadline, main)
