//! What all handlers share.

use std::sync::Arc;
use std::time::Instant;

use ams_signal::RateLimit;
use ams_types::AppName;
use http::HeaderValue;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::ApiConfig;
use crate::port::Node;
use crate::rate::RateLimiter;
use crate::refusals::Refusals;
use crate::resources::Resources;

pub(crate) struct ApiState {
    pub(crate) node: Arc<dyn Node>,
    pub(crate) config: ApiConfig,
    pub(crate) rates: RateLimiter,
    pub(crate) resources: Resources,
    pub(crate) refusals: Arc<Refusals>,
    /// Every task this crate starts; [`crate::Api::shutdown`] waits for them.
    pub(crate) tasks: TaskTracker,
    /// Clients are told to reconnect elsewhere; new sockets are refused.
    pub(crate) announced: CancellationToken,
    /// Sockets are closed.
    pub(crate) closing: CancellationToken,
    pub(crate) host_name: String,
    pub(crate) ice_links: Vec<HeaderValue>,
}

pub(crate) type Shared = Arc<ApiState>;

impl ApiState {
    pub(crate) fn new(node: Arc<dyn Node>, config: ApiConfig) -> Self {
        let limit = RateLimit { per_second: config.limits.requests_per_second, burst: config.limits.request_burst };
        let host_name = if config.host_name.is_empty() { machine_name() } else { config.host_name.clone() };
        let ice_links = config.ice_links().iter().filter_map(|link| HeaderValue::from_str(link).ok()).collect();
        Self {
            node,
            rates: RateLimiter::new(limit, Instant::now()),
            resources: Resources::new(config.limits.http_sessions),
            refusals: Arc::default(),
            tasks: TaskTracker::new(),
            announced: CancellationToken::new(),
            closing: CancellationToken::new(),
            host_name,
            ice_links,
            config,
        }
    }

    /// The application of that name, if it is served.
    pub(crate) fn app(&self, name: &str) -> Option<AppName> {
        let name: AppName = name.parse().ok()?;
        self.node.apps().contains(&name).then_some(name)
    }
}

fn machine_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}
