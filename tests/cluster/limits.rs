//! As many sessions as section `[limits]` allows, however many come at once; who is refused is told which limit it was.

use std::time::Duration;

use ams_rtc::ice::IceCredentials;
use ams_testkit::ams::AmsSocket;
use ams_testkit::case::{case, patient_case};
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::http::Answer;
use ams_testkit::light::{LightPublisher, LightViewer};
use ams_testkit::node::NodeProcess;
use ams_testkit::{APP, eventually, http, light, sdp};
use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;

use super::{SOON, all_intact, error_of, is_error, play, publish};

/// Somebody behind a balancer offers to watch; its transport never comes.
async fn offer_from(edge: &NodeProcess, address: &str, stream: &str) -> Result<Answer> {
    let offer = sdp::play_offer(&IceCredentials::random(), &light::fingerprint()?);
    let url = edge.url(&format!("/{APP}/whep/{stream}"));
    http::send("POST", &url, &[("content-type", "application/sdp"), ("x-forwarded-for", address)], offer).await
}

fn is_refused(answer: &Answer, status: u16, limit: &str) -> Result<()> {
    ensure!(answer.status == status, "{answer:?}");
    let after = answer.header("retry-after").context("Retry-After")?;
    ensure!(after.parse::<u32>().is_ok_and(|s| (1..=30).contains(&s)), "{answer:?}");
    ensure!(answer.json()["detail"].as_str().is_some_and(|s| s.contains(limit)), "{limit}: {answer:?}");
    Ok(())
}

async fn refused(node: &NodeProcess, reason: &str) -> Result<u64> {
    let row = format!("ams_sessions_refused_total{{reason=\"{reason}\"}} ");
    let figures = http::get(&node.url("/metrics")).await?.body;
    let row = figures.lines().find_map(|line| line.strip_prefix(&row)).context("no such row")?;
    Ok(row.parse()?)
}

#[test]
fn publishers_count_from_their_first_word_to_their_last() {
    case(async {
        let args = ["--set", "limits.sessions=3", "--set", "limits.sessions_per_address=2"];
        let cluster = Cluster::start(ClusterOptions::new(203, 0).args(&args)).await?;
        let seats = cluster.origin.metric("ams_seats_left").await?;
        ensure!(seats == 3.0, "{seats} seats are left");
        let mut socket = AmsSocket::connect_from(&cluster.origin.socket(), Some("203.0.113.7")).await?;
        for stream in ["p1", "p2"] {
            socket.send(publish(stream)).await?;
            socket.command("start", SOON).await?;
        }
        socket.send(publish("p3")).await?;
        let error = socket.command("error", SOON).await?;
        is_error(&error, "highResourceUsage", Some("p3"))?;
        ensure!(error.to_string().contains("limits.sessions_per_address = 2"), "{error}");
        // Not even its id is taken by one who is refused.
        let mut other = AmsSocket::connect(&cluster.origin.socket()).await?;
        other.send(publish("p3")).await?;
        other.command("start", SOON).await?;
        let error = error_of(&cluster.origin.socket(), publish("p4")).await?;
        is_error(&error, "highResourceUsage", Some("p4"))?;
        ensure!(error.to_string().contains("limits.sessions = 3"), "{error}");
        socket.stop("p1").await?;
        eventually("its place is free", SOON, || async {
            let mut third = AmsSocket::connect_from(&cluster.origin.socket(), Some("203.0.113.7")).await.ok()?;
            third.send(publish("p4")).await.ok()?;
            third.command("start", SOON).await.ok()
        })
        .await?;
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn limits_hold_at_all_doors_and_places_come_free() {
    patient_case(Duration::from_secs(90), async {
        let limits = ["limits.viewers_per_stream=4", "limits.sessions_per_app=7", "limits.sessions_per_address=2"];
        let args: Vec<&str> = limits.iter().flat_map(|limit| ["--set", limit]).collect();
        let cluster = Cluster::start(ClusterOptions::new(201, 1).args(&args)).await?;
        let (edge, socket) = (cluster.edge(0)?, cluster.origin.socket());
        let _publishers = [
            LightPublisher::publish(&socket, "one").await?,
            LightPublisher::publish(&socket, "two").await?,
            LightPublisher::publish(&socket, "three").await?,
        ];
        // All at once, by both doors; addresses of balancers are not counted.
        let come = (0..14).map(|n| async move {
            match n % 2 {
                0 => LightViewer::play(&edge.socket(), "one").await,
                _ => LightViewer::whep(&edge.url(""), APP, "one").await,
            }
        });
        let (mut taken, mut told) = (Vec::new(), 0);
        for came in join_all(come).await {
            match came {
                Ok(viewer) => taken.push(viewer),
                Err(error) => {
                    let error = error.to_string();
                    let word = error.contains("highResourceUsage") || error.contains("WHEP answered 503");
                    ensure!(word && error.contains("limits.viewers_per_stream = 4"), "{error}");
                    told += 1;
                }
            }
        }
        ensure!((taken.len(), told) == (4, 10), "{} taken, {told} told", taken.len());
        all_intact(&taken, 30).await?;
        // One leaves, one comes in, at once.
        let gone = taken.iter().position(|viewer| viewer.resource.is_some());
        let gone = taken.swap_remove(gone.unwrap_or(0));
        if let Some(resource) = &gone.resource {
            http::send("DELETE", resource, &[], "").await?;
        }
        drop(gone);
        eventually("its place is free", SOON, || async { LightViewer::play(&edge.socket(), "one").await.ok() })
            .await
            .map(|viewer| taken.push(viewer))?;
        is_refused(&offer_from(edge, "10.1.1.1", "one").await?, 503, "limits.viewers_per_stream = 4")?;

        // Two of an address, whatever its door and stream; another has its own.
        for stream in ["two", "three"] {
            let answer = offer_from(edge, "203.0.113.7", stream).await?;
            ensure!(answer.status == 201, "{answer:?}");
        }
        is_refused(&offer_from(edge, "203.0.113.7", "two").await?, 429, "limits.sessions_per_address = 2")?;
        let mut other_door = AmsSocket::connect_from(&edge.socket(), Some("203.0.113.7")).await?;
        other_door.send(play("two")).await?;
        is_error(&other_door.command("error", SOON).await?, "highResourceUsage", Some("two"))?;
        let answer = offer_from(edge, "2001:db8::1", "two").await?;
        ensure!(answer.status == 201, "{answer:?}");

        // That was the seventh of the application.
        is_refused(&offer_from(edge, "203.0.113.9", "three").await?, 503, "limits.sessions_per_app = 7")?;
        ensure!(refused(edge, "viewers_per_stream").await? >= 11 && refused(edge, "sessions_per_address").await? == 2);
        ensure!(refused(edge, "sessions_per_app").await? == 1 && refused(edge, "load").await? == 0);
        ensure!(edge.log().contains("sessions are refused: a limit is reached"), "{}", edge.log());
        all_intact(&taken, 30).await?;

        // Those whose transports never came lose their places.
        eventually("its places are free", Duration::from_secs(25), || async {
            offer_from(edge, "203.0.113.7", "two").await.ok().filter(|answer| answer.status == 201)
        })
        .await?;
        // And with all of them gone there is nothing left.
        drop(taken);
        eventually("nobody has a place", Duration::from_secs(40), || async {
            (edge.metric("ams_sessions").await.ok()? == 0.0).then_some(())
        })
        .await?;
        cluster.end().await;
        Ok(())
    });
}
