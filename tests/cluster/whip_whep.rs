//! WHIP and WHEP across nodes: the same streams as the WebSocket's, by HTTP alone.

use ams_rtc::ice::IceCredentials;
use ams_testkit::ams::AmsSocket;
use ams_testkit::case::case;
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::light::{LightPublisher, LightViewer, patch};
use ams_testkit::{APP, eventually, http, sdp};
use anyhow::{Context, Result, ensure};

use super::{PROMPTLY, SOON, all_intact, is_error, publish, record_over};

#[test]
fn a_stream_goes_from_whip_to_whep_and_ends_with_delete() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(80, 1)).await?;
        let (origin, edge) = (cluster.origin.url(""), cluster.edge(0)?.url(""));
        let publisher = LightPublisher::whip(&origin, APP, "resource").await?;
        let created = publisher.answer.clone().context("answer")?;
        let location = created.header("location").context("Location")?;
        ensure!(location.starts_with("/WebRTCAppEE/whip/resource/"), "{location}");
        ensure!(created.header("content-type") == Some("application/sdp"), "{created:?}");
        let tag = created.header("etag").context("ETag")?;
        ensure!(tag.len() > 4 && tag.starts_with('"') && tag.ends_with('"'), "a quoted strong ETag: {tag}");
        wait_live(&cluster, "resource").await?;

        let viewers = [
            LightViewer::whep(&edge, APP, "resource").await?,
            LightViewer::play(&cluster.edge(0)?.socket(), "resource").await?,
            LightViewer::whep(&origin, APP, "resource").await?,
        ];
        all_intact(&viewers, 60).await?;
        let in_use = http::send(
            "POST",
            &format!("{origin}/{APP}/whip/resource"),
            &[("content-type", "application/sdp")],
            sdp::publish_offer(&IceCredentials::random(), &ams_testkit::light::fingerprint()?),
        )
        .await?;
        ensure!(in_use.status == 409 && in_use.header("retry-after").is_some(), "a second publisher: {in_use:?}");

        let own = viewers[0].resource.as_deref().context("resource")?;
        ensure!(http::send("DELETE", own, &[], "").await?.status == 200, "a viewer may leave");
        eventually("its transport is closed", PROMPTLY, || async { viewers[0].counts.is_closed().then_some(()) })
            .await?;
        ensure!(http::send("DELETE", own, &[], "").await?.status == 404, "it is gone");

        let deleted = http::send("DELETE", publisher.resource.as_deref().context("resource")?, &[], "").await?;
        ensure!(deleted.status == 200, "{deleted:?}");
        eventually("the others are closed", PROMPTLY, || async {
            viewers.iter().all(|v| v.counts.is_closed()).then_some(())
        })
        .await?;
        record_over(&cluster.databases, "resource", SOON).await?;
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn a_stream_that_is_not_live_is_told_with_a_time() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(81, 1)).await?;
        for node in [&cluster.origin, cluster.edge(0)?] {
            let offer = sdp::play_offer(&IceCredentials::random(), &ams_testkit::light::fingerprint()?);
            let url = node.url("/WebRTCAppEE/whep/nobody");
            let answer = http::send("POST", &url, &[("content-type", "application/sdp")], offer).await?;
            ensure!(answer.status == 409, "{answer:?}");
            let after = answer.header("retry-after").context("Retry-After")?;
            ensure!(after.parse::<u32>().is_ok_and(|s| (1..=30).contains(&s)), "{after}");
            ensure!(answer.header("content-type") == Some("application/problem+json"), "{answer:?}");
        }
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn an_ice_restart_keeps_the_media_and_old_tags_are_refused() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(82, 1)).await?;
        let _publisher = LightPublisher::whip(&cluster.origin.url(""), APP, "restart").await?;
        wait_live(&cluster, "restart").await?;
        let viewer = LightViewer::whep(&cluster.edge(0)?.url(""), APP, "restart").await?;
        viewer.wait_video(60, super::MEDIA).await?;
        let resource = viewer.resource.clone().context("resource")?;
        let first = viewer.answer.as_ref().and_then(|a| a.header("etag")).context("ETag")?.to_owned();

        let refused = patch(&resource, "", &IceCredentials::random()).await?;
        ensure!(refused.status == 428, "without a tag: {refused:?}");
        let refused = patch(&resource, "\"another\"", &IceCredentials::random()).await?;
        ensure!(refused.status == 412, "with a wrong tag: {refused:?}");

        let restarted = viewer.restart_ice("*").await?;
        let second = restarted.header("etag").context("ETag of the restart")?.to_owned();
        ensure!(second != first && second.starts_with('"'), "a new tag: {second} after {first}");
        ensure!(restarted.header("content-type") == Some("application/trickle-ice-sdpfrag"), "{restarted:?}");
        let stale = patch(&resource, &first, &IceCredentials::random()).await?;
        ensure!(stale.status == 412, "the tag of the former ICE session: {stale:?}");

        // Longer than consent lasts: only the new credentials can have kept it alive.
        viewer.wait_video(11 * 90, std::time::Duration::from_secs(20)).await?;
        viewer.counts.intact()?;
        ensure!(viewer.counts.get(|c| &c.checks_refused) == 0, "checks with the new credentials are answered");
        let again = viewer.restart_ice(&second).await.context("a second restart, by its tag")?;
        ensure!(again.header("etag") != Some(second.as_str()), "{again:?}");
        viewer.wait_video(60, super::MEDIA).await?;
        viewer.counts.intact()?;
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn whip_and_the_websocket_share_one_name_space() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(83, 0)).await?;
        let publisher = LightPublisher::whip(&cluster.origin.url(""), APP, "shared").await?;
        let mut socket = AmsSocket::connect(&cluster.origin.socket()).await?;
        socket.send(publish("shared")).await?;
        is_error(&socket.command("error", SOON).await?, "streamIdInUse", Some("shared"))?;
        let resource = publisher.resource.clone().context("resource")?;
        http::send("DELETE", &resource, &[], "").await?;
        LightPublisher::publish_on(socket, "shared", ams_testkit::light::Habits::default()).await?;
        cluster.end().await;
        Ok(())
    });
}

async fn wait_live(cluster: &Cluster, stream: &str) -> Result<()> {
    eventually("the record says that it is live", SOON, || async {
        let record = cluster.databases.broadcast(APP, stream).await.ok()??;
        (record.get_str("status").ok()? == "broadcasting").then_some(())
    })
    .await
}
