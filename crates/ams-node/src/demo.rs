//! The demo: one origin and one edge in one process, over a real relay link and a registry in memory.
//!
//! Owns nothing but the pairing and the few lines a person reads.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::exit::ExitError;
use crate::node::run::{connect, run_with};
use crate::startup::Listeners;

/// Runs both nodes until `cancel`, or until one of them cannot go on.
///
/// # Errors
/// What keeps a node from starting, or made it end.
pub async fn run(
    origin: (Config, Listeners),
    edge: (Config, Listeners),
    cancel: CancellationToken,
) -> Result<(), ExitError> {
    let registry = connect(&origin.0).await?;
    let greeting = greeting(&origin.0, &edge.0);
    let (origin_ready, edge_ready) = (tokio::sync::oneshot::channel(), tokio::sync::oneshot::channel());
    let both = async {
        if origin_ready.1.await.is_ok() && edge_ready.1.await.is_ok() {
            println!("{greeting}");
        }
        std::future::pending::<()>().await;
    };
    let end = cancel.child_token();
    let one = async |node: (Config, Listeners), ready: tokio::sync::oneshot::Sender<()>| {
        let ended = run_with(node.0, node.1, Arc::clone(&registry), end.clone().into(), async move |_| {
            let _ = ready.send(());
        })
        .await;
        // One without the other is no demo.
        end.cancel();
        ended
    };
    let nodes = async { tokio::join!(one(edge, edge_ready.0), one(origin, origin_ready.0)) };
    let (edge_ended, origin_ended) = tokio::select! {
        ended = nodes => ended,
        () = both => return Ok(()),
    };
    registry.close().await;
    origin_ended.and(edge_ended)
}

fn greeting(origin: &Config, edge: &Config) -> String {
    let app = origin.apps.first().map_or("WebRTCAppEE", |app| app.as_str());
    let at = |config: &Config| match config.http.ip() {
        ip if ip.is_unspecified() => format!("localhost:{}", config.http.port()),
        ip => format!("{ip}:{}", config.http.port()),
    };
    format!(
        "\n  Publish your camera   http://{}/{app}/\n  Watch it elsewhere    http://{}/{app}/player.html\n\n  \
         Same stream id on both pages (stream1). Ctrl-C ends the demo.\n",
        at(origin),
        at(edge),
    )
}
