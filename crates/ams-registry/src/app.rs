//! Which name an application's records go by: one rule for all stores, so that a node can move from one to another.

use ams_types::AppName;

use crate::error::RegistryError;

/// Database of the nodes' rows in MongoDB.
pub(crate) const CLUSTER_DATABASE: &str = "clusterdb";
/// Databases an application cannot have: the server's own, and those with another meaning.
const RESERVED: [&str; 5] = ["admin", "local", "config", "serverdb", CLUSTER_DATABASE];

/// The application's name in lower case: two that differ in case only share their records.
///
/// # Errors
/// [`RegistryError::InvalidRequest`] for a name whose database has another use.
pub(crate) fn database_name(app: &AppName) -> Result<String, RegistryError> {
    let name = app.as_str().to_ascii_lowercase();
    if RESERVED.contains(&name.as_str()) {
        let reason = format!("an application cannot be called {app}: the database of that name has another use");
        return Err(RegistryError::InvalidRequest { operation: "finding the application's records", reason });
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_has_the_database_of_its_lower_case_name() {
        for (app, want) in [
            ("WebRTCAppEE", Some("webrtcappee")),
            ("live", Some("live")),
            ("admin", None),
            ("ClusterDB", None),
            ("Config", None),
        ] {
            assert_eq!(database_name(&app.parse().unwrap()).ok().as_deref(), want, "{app}");
        }
    }
}
