//! What all handlers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ams_access::CidrList;
use ams_signal::RateLimit;
use ams_types::AppName;
use http::HeaderValue;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::ApiConfig;
use crate::login::Login;
use crate::port::Node;
use crate::rate::RateLimiter;
use crate::refusals::Refusals;
use crate::resources::Resources;

pub(crate) struct ApiState {
    pub(crate) node: Arc<dyn Node>,
    pub(crate) config: ApiConfig,
    pub(crate) rates: RateLimiter,
    pub(crate) resources: Resources,
    pub(crate) login: Login,
    /// From where the server's calls may be used. What cannot be read was refused before.
    pub(crate) dashboard: CidrList,
    pub(crate) refusals: Arc<Refusals>,
    /// Every task this crate starts; [`crate::Api::shutdown`] waits for them.
    pub(crate) tasks: TaskTracker,
    /// Clients are told to reconnect elsewhere: from when on, and over which time. New sockets are refused meanwhile.
    pub(crate) stopping: watch::Sender<Option<(Instant, Duration)>>,
    /// Gives each socket its place in that time.
    pub(crate) places: AtomicU32,
    /// Sockets are closed.
    pub(crate) closing: CancellationToken,
    pub(crate) host_name: String,
    pub(crate) ice_links: Vec<HeaderValue>,
}

pub(crate) type Shared = Arc<ApiState>;

impl ApiState {
    pub(crate) fn new(node: Arc<dyn Node>, config: ApiConfig) -> Self {
        crate::rest::system::note_start();
        let limit = RateLimit { per_second: config.limits.requests_per_second, burst: config.limits.request_burst };
        let host_name = if config.host_name.is_empty() { machine_name() } else { config.host_name.clone() };
        let ice_links = config.ice_links().iter().filter_map(|link| HeaderValue::from_str(link).ok()).collect();
        Self {
            node,
            rates: RateLimiter::new(limit, Instant::now()),
            resources: Resources::new(config.limits.http_sessions),
            login: Login::default(),
            dashboard: CidrList::parse(&config.allowed_dashboard_cidr).unwrap_or_default(),
            refusals: Arc::default(),
            tasks: TaskTracker::new(),
            stopping: watch::Sender::new(None),
            places: AtomicU32::new(0),
            closing: CancellationToken::new(),
            host_name,
            ice_links,
            config,
        }
    }

    /// Whether clients are told to go.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.borrow().is_some()
    }

    /// When the next socket is told, counted from the announcement: places are spread evenly however many there are.
    pub(crate) fn place_within(&self, spread: Duration) -> Duration {
        const GOLDEN: f64 = 0.618_033_988_75;
        let place = f64::from(self.places.fetch_add(1, Ordering::Relaxed));
        spread.mul_f64((place * GOLDEN).fract())
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
