"""GStreamer's webrtcbin watches by WHEP and decodes what comes. It brings an RSA certificate.

  drive whep_gstreamer.py --url http://127.0.0.1:5081/WebRTCAppEE/whep/stream1 [--codec VP8|H264] [--seconds 5]

Events: `answered`, `playing` (the first decoded picture). With --seconds 0 it watches until standard input is closed.
"""

import asyncio
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402  (versions come first)

from lib.aio import Http  # noqa: E402
from lib.driver import Watcher, emit, lasting, on_thread, options, run  # noqa: E402

option = options(__doc__, url="", codec="VP8", seconds=5.0, token="", start_deadline=20.0, deadline=300.0)

OFFERED = {
    "VP8": "application/x-rtp,media=video,encoding-name=VP8,payload=96,clock-rate=90000,"
    "rtcp-fb-nack=true,rtcp-fb-nack-pli=true",
    "H264": "application/x-rtp,media=video,encoding-name=H264,payload=97,clock-rate=90000,packetization-mode=(string)1,"
    "profile-level-id=(string)42e01f,rtcp-fb-nack=true,rtcp-fb-nack-pli=true",
}
OPUS = "application/x-rtp,media=audio,encoding-name=OPUS,payload=111,clock-rate=48000,encoding-params=(string)2"


class Viewer:
    """The pipeline. GStreamer calls from threads of its own; counters are only ever added to."""

    def __init__(self):
        self.watcher = Watcher()
        self.sounds = 0
        self.sound_peak = 0
        self.trouble = None
        self.pipeline = Gst.Pipeline.new()
        self.webrtc = Gst.ElementFactory.make("webrtcbin")
        self.webrtc.set_property("bundle-policy", GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
        self.pipeline.add(self.webrtc)
        self.webrtc.connect("pad-added", self._on_pad)
        receive = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
        for caps in (OPUS, OFFERED[option.codec]):
            self.webrtc.emit("add-transceiver", receive, Gst.Caps.from_string(caps))
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::error", self._on_error)

    def _on_error(self, _bus, message):
        error, detail = message.parse_error()
        self.trouble = self.trouble or f"{error.message} ({(detail or '').splitlines()[-1:]})"

    def _on_pad(self, _webrtc, pad):
        if pad.get_direction() != Gst.PadDirection.SRC:
            return
        decoder = Gst.ElementFactory.make("decodebin")
        decoder.connect("pad-added", self._on_decoded)
        self.pipeline.add(decoder)
        decoder.sync_state_with_parent()
        pad.link(decoder.get_static_pad("sink"))

    def _on_decoded(self, _decoder, pad):
        video = pad.get_current_caps().to_string().startswith("video/")
        if video:
            chain = (
                "videoconvert ! videoscale ! video/x-raw,format=RGB,"
                f"width={Watcher.WIDTH},height={Watcher.HEIGHT},pixel-aspect-ratio=1/1"
            )
        else:
            chain = "audioconvert ! audioresample ! audio/x-raw,format=S16LE,channels=2,layout=interleaved"
        sink = "appsink name=sink emit-signals=true sync=false"
        branch = Gst.parse_bin_from_description(f"queue ! {chain} ! {sink}", True)
        branch.get_by_name("sink").connect("new-sample", self._on_picture if video else self._on_sound)
        self.pipeline.add(branch)
        branch.sync_state_with_parent()
        pad.link(branch.get_static_pad("sink"))

    def _on_picture(self, sink):
        buffer = sink.emit("pull-sample").get_buffer()
        data = buffer.extract_dup(0, buffer.get_size())
        # 48 bytes a row: a multiple of four, so GStreamer adds no padding.
        self.watcher.see(data, Watcher.WIDTH * 3)
        return Gst.FlowReturn.OK

    def _on_sound(self, sink):
        buffer = sink.emit("pull-sample").get_buffer()
        data = buffer.extract_dup(0, buffer.get_size())
        self.sounds += 1
        self.sound_peak = max(self.sound_peak, max(memoryview(data).cast("h"), default=0))
        return Gst.FlowReturn.OK

    def start(self):
        self.pipeline.set_state(Gst.State.PLAYING)

    def offer(self):
        """Blocks until gathering is complete; returns the offer with its candidates."""
        promise = Gst.Promise.new()
        self.webrtc.emit("create-offer", None, promise)
        promise.wait()
        reply = promise.get_reply()
        description = reply.get_value("offer")
        gathered = threading.Event()

        def check(*_):
            if self.webrtc.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
                gathered.set()

        self.webrtc.connect("notify::ice-gathering-state", check)
        done = Gst.Promise.new()
        self.webrtc.emit("set-local-description", description, done)
        done.wait()
        check()
        gathered.wait(5)
        return self.webrtc.get_property("local-description").sdp.as_text()

    def answer(self, text):
        _, sdp = GstSdp.SDPMessage.new_from_text(text)
        description = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, sdp)
        done = Gst.Promise.new()
        self.webrtc.emit("set-remote-description", description, done)
        done.wait()

    def state(self):
        return self.webrtc.get_property("connection-state").value_nick

    def stop(self):
        self.pipeline.set_state(Gst.State.NULL)


async def main():
    Gst.init(None)
    loop = asyncio.get_running_loop()
    glib = GLib.MainLoop()
    threading.Thread(target=glib.run, daemon=True).start()
    viewer = Viewer()
    http = Http(option.url, option.token)
    try:
        viewer.start()
        offer = await on_thread(viewer.offer)
        answer = await http.post(offer)
        emit("answered", **http.about)
        begun = loop.time()
        await on_thread(viewer.answer, answer)
        while viewer.watcher.frames == 0:
            if viewer.trouble or loop.time() - begun > option.start_deadline:
                why = viewer.trouble or f"no picture: {viewer.state()}"
                return {"ok": False, "why": why, "sounds": viewer.sounds, **http.about}
            await asyncio.sleep(0.02)
        first_ms = round((loop.time() - begun) * 1000)
        emit("playing", firstFrameMs=first_ms)
        await lasting(option.seconds)
        deleted = await http.close()
        return {
            **http.about,
            **viewer.watcher.report(),
            "firstFrameMs": first_ms,
            "sounds": viewer.sounds,
            "soundPeak": viewer.sound_peak,
            "deleted": deleted,
        }
    finally:
        viewer.stop()
        glib.quit()
        await http.leave()


run(option.deadline, main)
