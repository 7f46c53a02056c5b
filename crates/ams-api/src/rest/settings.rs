//! An application's settings, read and replaced.

use ams_access::CidrList;
use ams_registry::AppSettingsRecord;
use axum::response::IntoResponse;
use rand::Rng;
use rand::distr::Alphanumeric;

use super::call::{Call, Object, now_ms};
use super::outcome::{Answer, Outcome, RestError, ok};

/// Characters of a new `clusterCommunicationKey`.
const KEY_LEN: usize = 32;

/// `GET /applications/settings/{app}`
pub(super) async fn get(call: Call) -> Answer {
    ok(&call.settings()?.to_json())
}

/// `POST /applications/settings/{app}`: replaces all; what is left out has its default.
pub(super) async fn post(call: Call, Object(body): Object) -> Answer {
    let app = call.app()?.clone();
    let settings = AppSettingsRecord::described(body)?;
    for (name, list) in [
        ("remoteAllowedCIDR", &settings.remote_allowed_cidr),
        ("allowedPublisherCIDR", &settings.allowed_publisher_cidr),
    ] {
        if let Err(error) = CidrList::parse(list.as_deref().unwrap_or_default()) {
            return Ok(Outcome::failed(format!("{name} cannot be used: {error}")).into_response());
        }
    }
    let random = || rand::rng().sample_iter(Alphanumeric).take(KEY_LEN).map(char::from).collect();
    let before = call.settings()?;
    let settings = AppSettingsRecord {
        app_name: Some(app.to_string()),
        // Later than what the other nodes have, also when this node's clock is behind.
        update_time: now_ms().max(before.update_time.saturating_add(1)),
        cluster_communication_key: settings
            .cluster_communication_key
            .clone()
            .or_else(|| before.cluster_communication_key.clone())
            .filter(|key| !key.is_empty())
            .or_else(|| Some(random())),
        ..settings
    };
    call.state.node.store_settings(&app, settings).await.map_err(RestError::from)?;
    Ok(Outcome::done().into_response())
}
