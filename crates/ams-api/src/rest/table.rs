//! Every call of AMS's REST API and what is made of it here: the routes, and the table in `docs/compatibility.md`.
//!
//! Owns the list. The document is written from it, so that it cannot promise what is not routed.

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};

use super::{broadcasts, data, ending, off, server, settings, subscribers, subtracks, tokens, users};
use crate::health;
use crate::state::Shared;

/// What is made of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// As AMS does it.
    Done,
    /// With a difference.
    Differs(&'static str),
    /// As AMS with the feature off.
    Off,
}

/// One call.
pub(super) struct Entry {
    #[cfg_attr(not(test), expect(dead_code, reason = "the document says it"))]
    method: &'static str,
    path: &'static str,
    route: MethodRouter<Shared>,
    #[cfg_attr(not(test), expect(dead_code, reason = "the document says it"))]
    how: How,
}

impl Entry {
    pub(super) fn new<T: 'static, H: Handler<T, Shared>>(method: &'static str, path: &'static str, handler: H) -> Self {
        let filter = match method {
            "GET" => MethodFilter::GET,
            "PUT" => MethodFilter::PUT,
            "DELETE" => MethodFilter::DELETE,
            _ => MethodFilter::POST,
        };
        Self { method, path, route: on(filter, handler), how: How::Done }
    }

    #[must_use]
    pub(super) fn off(self) -> Self {
        Self { how: How::Off, ..self }
    }

    #[must_use]
    pub(super) fn differs(self, note: &'static str) -> Self {
        Self { how: How::Differs(note), ..self }
    }

    pub(super) fn add_to(self, router: Router<Shared>, base: &str) -> Router<Shared> {
        router.route(&format!("{base}{}", self.path), self.route)
    }
}

/// `METHOD path => handler`, with a note where it differs from AMS.
macro_rules! calls {
    ($( $method:literal $path:literal => $handler:path $(, $note:literal)? ; )*) => {
        vec![ $( Entry::new($method, $path, $handler)$(.differs($note))? ),* ]
    };
}

/// Calls below `/{app}/rest/v2`.
pub(super) fn application() -> impl Iterator<Item = Entry> {
    calls! {
        "GET" "/version" => health::version;
        "POST" "/broadcasts/create" => broadcasts::create, "autoStart is refused: nothing is pulled here";
        "POST" "/broadcasts/create-list" => broadcasts::create_list, "refused: broadcasts are made one by one";
        "GET" "/broadcasts/{id}" => broadcasts::get;
        "PUT" "/broadcasts/{id}" => broadcasts::update, "fields of the publication are ignored";
        "DELETE" "/broadcasts/{id}" => ending::delete;
        "DELETE" "/broadcasts" => ending::delete_many;
        "DELETE" "/broadcasts/" => ending::delete_many;
        "GET" "/broadcasts/list/{offset}/{size}" => broadcasts::list, "patterns: no look-around, no back references";
        "GET" "/broadcasts/count" => broadcasts::count;
        "GET" "/broadcasts/count/{search}" => broadcasts::count_found;
        "GET" "/broadcasts/active-live-stream-count" => broadcasts::count_live;
        "POST" "/broadcasts/{id}/stop" => ending::stop;
        "POST" "/broadcasts/{id}/start" => ending::start, "refused: nothing is pulled here";
        "GET" "/broadcasts/{id}/broadcast-statistics" => broadcasts::statistics;
        "GET" "/broadcasts/total-broadcast-statistics" => broadcasts::total_statistics;
        "GET" "/broadcasts/{id}/stream-info" => broadcasts::stream_info;
        "POST" "/broadcasts/{id}/subtrack" => subtracks::add;
        "DELETE" "/broadcasts/{id}/subtrack" => subtracks::remove;
        "GET" "/broadcasts/{id}/subtracks/{offset}/{size}" => subtracks::list;
        "GET" "/broadcasts/{id}/active-subtracks/{offset}/{size}" => subtracks::list_live;
        "GET" "/broadcasts/{id}/active-subtracks-count" => subtracks::count_live;
        "POST" "/broadcasts/{id}/data" => data::say;
        "GET" "/broadcasts/{id}/token" => tokens::create;
        "GET" "/broadcasts/{id}/jwt-token" => tokens::create_jwt;
        "POST" "/broadcasts/validate-token" => tokens::validate;
        "DELETE" "/broadcasts/{id}/tokens" => tokens::revoke;
        "GET" "/broadcasts/{id}/tokens/list/{offset}/{size}" => tokens::list;
        "POST" "/broadcasts/{id}/subscribers" => subscribers::add;
        "DELETE" "/broadcasts/{id}/subscribers" => subscribers::delete_all;
        "GET" "/broadcasts/{id}/subscribers/list/{offset}/{size}" => subscribers::list;
        "GET" "/broadcasts/{id}/subscriber-stats/list/{offset}/{size}" => subscribers::list;
        "GET" "/broadcasts/{id}/subscribers/{subscriber}/totp" => subscribers::time_code;
        "DELETE" "/broadcasts/{id}/subscribers/{subscriber}" => subscribers::delete;
        "PUT" "/broadcasts/{id}/subscribers/{subscriber}/block/{seconds}/{type}" => subscribers::block,
            "kept for the next connection; one that is open stays";
        "GET" "/broadcasts/{id}/connection-events/{offset}/{size}" => subscribers::connection_events;
    }
    .into_iter()
    .chain(off::calls())
}

/// Calls below `/rest/v2`. `liveness` is open to all and routed elsewhere.
pub(super) fn server() -> impl Iterator<Item = Entry> {
    let on = calls! {
        "GET" "/authentication-status" => users::authentication_status;
        "GET" "/first-login-status" => users::first_login_status;
        "POST" "/users/initial" => users::initial;
        "POST" "/users/authenticate" => users::authenticate;
        "GET" "/users/{user}/blocked" => users::blocked, "from the address that asks; AMS blocks the name everywhere";
        "DELETE" "/users/logout" => users::logout;
        "POST" "/users/password" => users::change_password, "ends the user's other sessions";
        "GET" "/user-list" => users::list;
        "POST" "/users" => users::create, "a role must be named";
        "PUT" "/users" => users::edit, "what is left out stays; the three fields of the role go together";
        "DELETE" "/users/{user}" => users::delete;
        "GET" "/admin-status" => users::admin_status;
        "GET" "/version" => health::version;
        "GET" "/enterprise-edition" => server::enterprise_edition;
        "GET" "/cluster-mode-status" => server::cluster_mode;
        "GET" "/applications" => server::applications;
        "GET" "/applications-info" => server::applications_info;
        "GET" "/applications/live-streams/{app}" => server::live_streams, "the first 50";
        "GET" "/applications/settings/{app}" => settings::get;
        "POST" "/applications/settings/{app}" => settings::post, "address lists that cannot be read are refused";
        "GET" "/system-resources" => server::resources;
        "GET" "/system-status" => server::system_status;
        "GET" "/cpu-status" => server::cpu_status;
        "GET" "/system-memory-status" => server::memory_status;
        "GET" "/jvm-memory-status" => server::process_memory_status, "this process; there is no JVM";
        "GET" "/file-system-status" => server::file_system_status;
        "GET" "/gpu-status" => server::gpu_status;
        "GET" "/server-time" => server::server_time;
        "GET" "/live-clients-size" => server::live_clients;
        "GET" "/cluster/node-count" => server::node_count;
        "GET" "/cluster/nodes/{offset}/{size}" => server::nodes;
        "DELETE" "/cluster/node/{node}" => server::delete_node;
        "GET" "/drain" => server::drain_state, "AMS has no such call: whether this node is leaving, and how far";
        "POST" "/drain" => server::drain, "AMS has no such call: this node sends its clients elsewhere and ends";
        "DELETE" "/drain" => server::cancel_drain, "AMS has no such call: it stays after all";
        "GET" "/licence-status" => server::licence_status, "none is needed";
        "GET" "/last-licence-status" => server::licence_status, "none is needed";
        "GET" "/log-file/{offset}/{size}" => server::log_file, "says where the log is: on standard output";
        "GET" "/shutdown-properly" => server::shutdown_properly, "always true";
    };
    let off = calls! {
        "POST" "/applications/{app}" => server::off;
        "PUT" "/applications/{app}" => server::off;
        "DELETE" "/applications/{app}" => server::off;
        "POST" "/applications/{app}/reset" => server::off;
        "POST" "/server-settings" => server::off;
        "POST" "/ssl-settings" => server::off;
    };
    on.into_iter().chain(off.into_iter().map(Entry::off))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;

    use super::*;

    /// What is sent of itself, which is no call but belongs to the same document.
    const WEBHOOKS: &str = "\n## Webhooks\n\n| action | here |\n|---|---|\n\
        | `liveStreamStarted` | when the stream can be played |\n\
        | `liveStreamEnded` | of a lost publisher: when nobody brought the stream back within `media.resume_window` |\n\
        | `publishTimeoutError` | done |\n\
        | `liveStreamStatus` | the queues and drops of an encoder are 0 |\n\
        | all others | never sent |\n\n\
        Bodies and content types are AMS's, with `eventId` besides. Success is any 2xx; AMS takes 200 alone. In order per \
        stream; AMS keeps no order. `webhookRetryCount` and `webhookRetryDelay` are the least, not the most, that is done.\n";

    fn document() -> String {
        let mut text = String::from(
            "# AMS's REST API, call by call\n\nWritten from the routes by a test of `ams-api` (with `AMS_WRITE_DOCS=1` \
             set, it writes this file instead of comparing it). *done*: as AMS does it. *off*: the call exists and \
             answers as AMS does while that feature is switched off, `success:false`, an empty list or 0.\n",
        );
        let proxied = super::super::proxy::calls(&Router::new());
        let tables: [(&str, Vec<Entry>); 2] =
            [("/{app}/rest/v2", application().collect()), ("/rest/v2", server().chain(proxied).collect())];
        for (base, calls) in tables {
            let _ = write!(text, "\n## Below `{base}`\n\n| call | here |\n|---|---|\n");
            for call in calls {
                let here = match call.how {
                    How::Done => "done",
                    How::Differs(note) => note,
                    How::Off => "off",
                };
                let _ = writeln!(text, "| `{} {}` | {here} |", call.method, call.path);
            }
        }
        text.push_str(WEBHOOKS);
        text
    }

    #[test]
    fn the_document_says_what_is_routed() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compatibility.md");
        let written = document();
        if std::env::var_os("AMS_WRITE_DOCS").is_some() {
            std::fs::write(&path, &written).unwrap();
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(stored == written, "docs/compatibility.md is out of date: run this test with AMS_WRITE_DOCS=1");
    }

    #[test]
    fn no_call_is_there_twice() {
        for calls in [application().collect::<Vec<_>>(), server().collect()] {
            let mut named: Vec<_> = calls.iter().map(|call| (call.method, call.path)).collect();
            named.sort_unstable();
            let count = named.len();
            named.dedup();
            assert_eq!(named.len(), count);
        }
    }
}
