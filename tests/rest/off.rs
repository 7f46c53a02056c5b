//! Calls for what is not done here: each exists, and says no as AMS does.

use ams_testkit::case::case;
use ams_testkit::node::{NodeOptions, NodeProcess};
use serde_json::json;

use super::{NONE, check, row};

#[test]
fn what_is_off_says_so_and_is_never_missing() {
    case(async {
        let options =
            NodeOptions { registry: Some("memory".to_owned()), ..NodeOptions::new("standalone", [127, 0, 64, 11]) };
        let node = NodeProcess::start(options).await?;
        let no = || json!({"success": false, "dataId": null, "errorId": 0});
        let mut rows = Vec::new();
        for (method, path) in [
            ("POST", "/broadcasts/playlists/s/next?index=1"),
            ("PUT", "/broadcasts/s/seek-time/1000"),
            ("GET", "/broadcasts/duration?url=http://x"),
            ("POST", "/broadcasts/s/endpoint"),
            ("DELETE", "/broadcasts/s/endpoint?endpointServiceId=x"),
            ("POST", "/broadcasts/s/rtmp-endpoint"),
            ("DELETE", "/broadcasts/s/rtmp-endpoint"),
            ("PUT", "/broadcasts/s/recording/true"),
            ("PUT", "/broadcasts/s/recording/false?recordType=webm"),
            ("POST", "/broadcasts/s/id3"),
            ("POST", "/broadcasts/s/sei"),
            ("POST", "/broadcasts/s.m3u8/hls-to-mp4"),
            ("POST", "/broadcasts/s/ip-camera/move"),
            ("POST", "/broadcasts/s/ip-camera/stop-move"),
            ("GET", "/broadcasts/s/ip-camera-error"),
            ("PUT", "/broadcasts/s/object-detection/true"),
            ("POST", "/broadcasts/conference-rooms"),
            ("GET", "/broadcasts/conference-rooms/r"),
            ("PUT", "/broadcasts/conference-rooms/r"),
            ("DELETE", "/broadcasts/conference-rooms/r"),
            ("GET", "/broadcasts/conference-rooms/r/room-info"),
            ("PUT", "/broadcasts/conference-rooms/r/add?streamId=s"),
            ("PUT", "/broadcasts/conference-rooms/r/delete?streamId=s"),
            ("DELETE", "/vods/v"),
            ("DELETE", "/vods?ids=a,b"),
            ("DELETE", "/vods/?ids=a,b"),
            ("POST", "/vods/create?name=x"),
            ("POST", "/vods/directory?directory=x"),
            ("DELETE", "/vods/directory?directory=x"),
            ("POST", "/vods/import-to-stalker"),
            ("GET", "/push-notification/subscriber-auth-token?subscriberId=a"),
            ("POST", "/push-notification/subscribers"),
            ("POST", "/push-notification/topics/t"),
        ] {
            rows.push(row("says no", method, path, NONE, 200, no()));
        }
        for path in [
            "/broadcasts/onvif-devices",
            "/broadcasts/s/ip-camera/device-profiles",
            "/broadcasts/s/webrtc-client-stats/0/50",
            "/broadcasts/s/metrics-history",
            "/broadcasts/s/detections",
            "/broadcasts/s/detections/0/10",
            "/broadcasts/conference-rooms/list/0/50",
            "/vods/list/0/50?sort_by=date",
        ] {
            rows.push(row("an empty list", "GET", path, NONE, 200, json!([])));
        }
        for path in ["/vods/count", "/vods/count/x", "/broadcasts/s/detections/count"] {
            rows.push(row("none", "GET", path, NONE, 200, json!({"number": 0})));
        }
        rows.push(row("a file that is none", "GET", "/vods/v", NONE, 200, json!({"vodId": null, "fileSize": 0})));
        for (path, want) in [
            ("/broadcasts/webrtc-send-low-level-stats", json!({"audioSendStats": null, "videoSendStats": null})),
            ("/broadcasts/webrtc-receive-low-level-stats", json!({"audioReceiveStats": null})),
        ] {
            rows.push(row("statistics nobody has", "GET", path, NONE, 200, want));
        }
        check(&node, &rows).await
    });
}
