//! Applications' settings as this node knows them.
//!
//! Owns the cache, the rules that follow from it and the loop that keeps it fresh. While the registry is away, what was read last stays in force; an
//! application nobody has set anything for has the defaults.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ams_access::{AccessPolicy, AccessSettings, Secret, StreamRules};
use ams_api::outgoing;
use ams_registry::{AppSettingsRecord, RegistryError};
use ams_types::AppName;
use tracing::{info, warn};

use super::NodeCore;

/// How often the registry is asked; a change is in force on all nodes within 2 s.
const POLL: Duration = Duration::from_secs(1);

/// Settings of the applications served here.
#[derive(Debug)]
pub(super) struct Settings {
    known: RwLock<HashMap<AppName, Known>>,
    /// What holds for an application nobody has set anything for.
    default_rules: Arc<StreamRules>,
    policy: AccessPolicy,
    /// They were read at least once.
    is_read: AtomicBool,
}

#[derive(Clone, Debug)]
struct Known {
    record: Arc<AppSettingsRecord>,
    rules: Arc<StreamRules>,
}

impl Settings {
    /// None are known yet. Who used up a one-time token may come back with it within `resume`, or the rules' own time
    /// if that is longer.
    pub(super) fn new(resume: Duration) -> Self {
        let own = AccessPolicy::default();
        let policy = AccessPolicy { token_resume: own.token_resume.max(resume), ..own };
        Self {
            known: RwLock::default(),
            default_rules: Arc::new(StreamRules::new(AccessSettings::default(), policy)),
            policy,
            is_read: AtomicBool::new(false),
        }
    }

    fn known(&self, app: &AppName) -> Option<Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(app).cloned()
    }

    pub(super) fn of(&self, app: &AppName) -> Arc<AppSettingsRecord> {
        self.known(app).map_or_else(|| Arc::new(AppSettingsRecord::of_app(app.as_str())), |known| known.record)
    }

    /// Who may publish and play. None before the settings were read for the first time: a protected application must
    /// not be open because its node started without the registry.
    pub(super) fn rules_of(&self, app: &AppName) -> Option<Arc<StreamRules>> {
        if !self.is_read.load(Ordering::Acquire) {
            return None;
        }
        Some(self.known(app).map_or_else(|| Arc::clone(&self.default_rules), |known| known.rules))
    }

    /// Takes in what the registry holds of `apps`. Several documents of one application: the one written last counts.
    fn learn(&self, apps: &[AppName], mut records: Vec<AppSettingsRecord>) {
        records.sort_by_key(|record| record.update_time);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for app in apps {
            let of_app = |record: &&AppSettingsRecord| record.app_name.as_deref() == Some(app.as_str());
            match records.iter().rfind(of_app) {
                Some(record) if known.get(app).is_none_or(|before| *before.record != *record) => {
                    info!(app = %app, "application settings taken over");
                    let rules = StreamRules::new(access_settings(record), self.policy);
                    warn_of_problems(app, record, &rules);
                    known.insert(app.clone(), Known { record: Arc::new(record.clone()), rules: Arc::new(rules) });
                }
                Some(_) => {}
                // Deleted: the defaults again.
                None => {
                    known.remove(app);
                }
            }
        }
        self.is_read.store(true, Ordering::Release);
    }
}

/// What of the settings is about who may publish and play.
fn access_settings(record: &AppSettingsRecord) -> AccessSettings {
    let secret = |text: &Option<String>| Secret::from(text.clone().unwrap_or_default());
    // An old name, kept as it was read: whatever is not plainly a no asks for codes.
    let subscriber_only = record.extra.get("timeTokenSubscriberOnly");
    AccessSettings {
        publish_token_control_enabled: record.publish_token_control_enabled,
        play_token_control_enabled: record.play_token_control_enabled,
        publish_jwt_control_enabled: record.publish_jwt_control_enabled,
        play_jwt_control_enabled: record.play_jwt_control_enabled,
        jwt_stream_secret_key: secret(&record.jwt_stream_secret_key),
        hash_control_publish_enabled: record.hash_control_publish_enabled,
        hash_control_play_enabled: record.hash_control_play_enabled,
        token_hash_secret: secret(&record.token_hash_secret),
        enable_time_token_for_publish: record.enable_time_token_for_publish,
        enable_time_token_for_play: record.enable_time_token_for_play,
        time_token_subscriber_only: subscriber_only
            .is_some_and(|value| !(value.is_null() || *value == false || *value == "false")),
        time_token_secret_for_publish: secret(&record.time_token_secret_for_publish),
        time_token_secret_for_play: secret(&record.time_token_secret_for_play),
        time_token_period: record.time_token_period.into(),
        accept_only_streams_in_data_store: record.accept_only_streams_in_data_store,
        allowed_publisher_cidr: record.allowed_publisher_cidr.clone(),
        webhook_authenticate_url: record.webhook_authenticate_url.clone(),
        webhook_play_auth_url: record.webhook_play_auth_url.clone(),
        web_rtc_viewer_limit: record.webrtc_viewer_limit.into(),
        ingesting_stream_limit: record.ingesting_stream_limit,
    }
}

/// Says which settings are enabled and cannot work. Called once for each change.
fn warn_of_problems(app: &AppName, record: &AppSettingsRecord, rules: &StreamRules) {
    for (setting, reason) in rules.problems() {
        warn!(%app, setting, reason, "an application's setting cannot work; what depends on it is refused");
    }
    let hooks = [
        ("webhookAuthenticateURL", &record.webhook_authenticate_url),
        ("webhookPlayAuthUrl", &record.webhook_play_auth_url),
    ];
    for (setting, url) in hooks {
        let url = url.as_deref().map(str::trim).unwrap_or_default();
        if !url.is_empty()
            && let Err(reason) = outgoing::check(url)
        {
            warn!(%app, setting, %reason, "an application's setting cannot work; what depends on it is refused");
        }
    }
}

impl NodeCore {
    pub(super) async fn settings_loop(self: Arc<Self>) {
        let mut interval = tokio::time::interval(POLL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                _ = interval.tick() => {}
            }
            // One that is away is watched elsewhere: asking would only take time.
            if self.is_registry_ok() {
                let _ = self.read_settings().await;
            }
        }
    }

    /// Reads all settings.
    pub(super) async fn read_settings(&self) -> Result<(), RegistryError> {
        let result = self.registry.list_app_settings().await;
        self.note_registry(&result);
        self.settings.learn(&self.config.apps, result?);
        Ok(())
    }

    pub(super) async fn store_settings(
        &self,
        app: &AppName,
        settings: &AppSettingsRecord,
    ) -> Result<(), RegistryError> {
        let result = self.registry.put_app_settings(app, settings).await;
        self.note_registry(&result);
        result?;
        self.read_settings().await
    }
}

#[cfg(test)]
mod tests {
    use ams_access::Purpose;

    use super::*;

    #[test]
    fn the_latest_document_counts_and_none_means_the_defaults() {
        let (live, other): (AppName, AppName) = ("live".parse().unwrap(), "other".parse().unwrap());
        let record = |app: &str, update_time, cidr: &str| AppSettingsRecord {
            update_time,
            remote_allowed_cidr: Some(cidr.to_owned()),
            ..AppSettingsRecord::of_app(app)
        };
        let settings = Settings::new(Duration::ZERO);
        assert!(settings.rules_of(&live).is_none(), "nobody is let in by settings that nobody has read");
        let cidr = |app| settings.of(app).remote_allowed_cidr.clone().unwrap();
        assert_eq!(cidr(&live), "127.0.0.1");
        let apps = [live.clone(), other.clone()];
        settings.learn(&apps, vec![record("live", 2, "b"), record("live", 1, "a"), record("foreign", 9, "c")]);
        assert_eq!((cidr(&live), cidr(&other)), ("b".to_owned(), "127.0.0.1".to_owned()));
        settings.learn(&apps, Vec::new());
        assert_eq!(cidr(&live), "127.0.0.1");
        assert!(settings.rules_of(&live).unwrap().is_open(Purpose::Play));
    }

    #[test]
    fn every_setting_about_access_reaches_the_rules() {
        let yes = || serde_json::Value::from(true);
        for (name, value, closed) in [
            ("publishTokenControlEnabled", yes(), Purpose::Publish),
            ("playTokenControlEnabled", yes(), Purpose::Play),
            ("publishJwtControlEnabled", yes(), Purpose::Publish),
            ("playJwtControlEnabled", yes(), Purpose::Play),
            ("hashControlPublishEnabled", yes(), Purpose::Publish),
            ("hashControlPlayEnabled", yes(), Purpose::Play),
            ("enableTimeTokenForPublish", yes(), Purpose::Publish),
            ("enableTimeTokenForPlay", yes(), Purpose::Play),
            ("timeTokenSubscriberOnly", yes(), Purpose::Play),
            ("timeTokenSubscriberOnly", "yes".into(), Purpose::Play),
            ("acceptOnlyStreamsInDataStore", yes(), Purpose::Publish),
            ("allowedPublisherCIDR", "10.0.0.0/8".into(), Purpose::Publish),
            ("webhookAuthenticateURL", "http://a/".into(), Purpose::Publish),
            ("webhookPlayAuthUrl", "http://a/".into(), Purpose::Play),
            ("webRTCViewerLimit", 1.into(), Purpose::Play),
            ("ingestingStreamLimit", 1.into(), Purpose::Publish),
        ] {
            let document = ams_registry::JsonMap::from_iter([(name.to_owned(), value)]);
            let record = AppSettingsRecord::from_json(document).0;
            let rules = StreamRules::new(access_settings(&record), AccessPolicy::default());
            let open = [Purpose::Publish, Purpose::Play].map(|purpose| rules.is_open(purpose));
            assert_eq!(open, [closed == Purpose::Play, closed == Purpose::Publish], "{name}");
        }
    }
}
