//! Messages to everybody on a stream's data channels.

use axum::response::IntoResponse;

use super::call::{Call, Text};
use super::outcome::{Answer, Outcome};
use crate::port::Said;

/// `POST /{id}/data`
pub(super) async fn say(call: Call, Text(text): Text) -> Answer {
    if !call.settings()?.data_channel_enabled {
        return Ok(Outcome::failed("Data channels are not enabled").into_response());
    }
    let said = match call.key()? {
        Some(key) => call.state.node.say(&key, text).await,
        None => Said::NotHere,
    };
    Ok(match said {
        Said::Sent => Outcome::done(),
        Said::NotHere => Outcome::failed("Requested WebRTC stream does not exist"),
        Said::TooLong(max) => Outcome::failed(format!("The message is longer than {max} bytes")),
    }
    .into_response())
}
