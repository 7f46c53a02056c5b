//! Applications' settings as this node knows them.
//!
//! Owns the cache and the loop that keeps it fresh. While the registry is away, what was read last stays in force; an
//! application nobody has set anything for has the defaults.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ams_registry::{AppSettingsRecord, RegistryError};
use ams_types::AppName;
use tracing::info;

use super::NodeCore;

/// How often the registry is asked; a change is in force on all nodes within 2 s.
const POLL: Duration = Duration::from_secs(1);

/// Settings of the applications served here.
#[derive(Debug, Default)]
pub(super) struct Settings(RwLock<HashMap<AppName, Arc<AppSettingsRecord>>>);

impl Settings {
    pub(super) fn of(&self, app: &AppName) -> Arc<AppSettingsRecord> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(app).cloned();
        known.unwrap_or_else(|| Arc::new(AppSettingsRecord::of_app(app.as_str())))
    }

    /// Takes in what the registry holds of `apps`. Several documents of one application: the one written last counts.
    fn learn(&self, apps: &[AppName], mut records: Vec<AppSettingsRecord>) {
        records.sort_by_key(|record| record.update_time);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for app in apps {
            let of_app = |record: &&AppSettingsRecord| record.app_name.as_deref() == Some(app.as_str());
            match records.iter().rfind(of_app) {
                Some(record) if known.get(app).is_none_or(|before| **before != *record) => {
                    info!(app = %app, "application settings taken over");
                    known.insert(app.clone(), Arc::new(record.clone()));
                }
                Some(_) => {}
                // Deleted: the defaults again.
                None => {
                    known.remove(app);
                }
            }
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
    use super::*;

    #[test]
    fn the_latest_document_counts_and_none_means_the_defaults() {
        let (live, other): (AppName, AppName) = ("live".parse().unwrap(), "other".parse().unwrap());
        let record = |app: &str, update_time, cidr: &str| AppSettingsRecord {
            update_time,
            remote_allowed_cidr: Some(cidr.to_owned()),
            ..AppSettingsRecord::of_app(app)
        };
        let settings = Settings::default();
        let cidr = |app| settings.of(app).remote_allowed_cidr.clone().unwrap();
        assert_eq!(cidr(&live), "127.0.0.1");
        let apps = [live.clone(), other.clone()];
        settings.learn(&apps, vec![record("live", 2, "b"), record("live", 1, "a"), record("foreign", 9, "c")]);
        assert_eq!((cidr(&live), cidr(&other)), ("b".to_owned(), "127.0.0.1".to_owned()));
        settings.learn(&apps, Vec::new());
        assert_eq!(cidr(&live), "127.0.0.1");
    }
}
