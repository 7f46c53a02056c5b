//! The contract suite: what every registry must do, run against each of them.
//!
//! Memory and SQLite always run. MongoDB runs where `AMS_TEST_MONGO` (a standalone server) and `AMS_TEST_MONGO_RS`
//! (a replica set) name a server; unset, that is said aloud, once each.
//!
//! - `bench`: two connections to one fresh registry, and a look behind its back
//! - `claims`, `races`, `records`, `queries`, `documents`, `nodes`, `outbox`, `panel`: the cases

pub(crate) mod bench;
mod claims;
mod documents;
mod nodes;
mod outbox;
mod panel;
mod queries;
mod races;
mod records;

use bench::{Bench, Kind};

/// Runs every case of every module against every kind of registry.
macro_rules! contract {
    ($( $module:ident: { $( $case:ident ),* $(,)? } )*) => {
        contract!(@kind memory Memory { $( $module: { $( $case ),* } )* });
        contract!(@kind sqlite SqliteFile { $( $module: { $( $case ),* } )* });
        contract!(@kind mongo_standalone MongoStandalone { $( $module: { $( $case ),* } )* });
        contract!(@kind mongo_replica_set MongoReplicaSet { $( $module: { $( $case ),* } )* });
    };
    (@kind $kind_module:ident $kind:ident { $( $module:ident: { $( $case:ident ),* } )* }) => {
        mod $kind_module {
            use super::*;
            $( $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    if let Some(bench) = Bench::open(Kind::$kind).await {
                        super::$module::$case(&bench).await;
                        bench.close().await;
                    }
                }
            )* )*
        }
    };
}

contract! {
    claims: {
        an_unknown_id_gets_a_record_that_goes_with_its_publication,
        a_record_made_by_rest_outlives_its_publications,
        an_id_that_is_held_is_refused_and_the_holder_named,
        a_stale_publication_can_be_taken_and_then_has_no_say,
        a_restarted_node_takes_its_streams_back_at_once,
        a_claim_whose_answer_was_lost_can_be_repeated,
        a_dead_nodes_stream_can_be_taken_at_once,
        a_newcomer_may_replace_exactly_one_publication,
        epochs_rise_over_deletion_and_a_clock_that_runs_back,
        another_program_that_takes_a_stream_over_ends_our_lease,
        a_stream_ended_by_others_cannot_be_confirmed,
        a_heartbeat_changes_only_what_it_names,
        publications_nobody_confirms_are_found_and_can_be_ended,
        a_heartbeat_tells_of_a_record_that_was_set_back,
        a_dead_nodes_stream_can_be_ended_by_any_node,
        leftovers_of_an_earlier_run_are_cleaned,
    }
    races: {
        of_two_claims_at_once_exactly_one_is_granted,
        epochs_of_successive_publications_rise_under_contention,
        of_two_that_make_a_record_one_does,
    }
    records: {
        an_upsert_says_what_it_did,
        an_upsert_leaves_a_running_publication_alone,
        unknown_fields_outlive_every_write,
        lists_are_ordered_bounded_and_counted,
        the_waiting_list_hears_only_of_streams_that_can_be_played,
        viewer_counts_are_set_for_one_publication_only,
        applications_are_apart_whatever_their_case,
        deleting_takes_the_renditions_along,
        a_closed_registry_says_so,
    }
    queries: {
        a_list_shows_what_is_asked_for_in_that_order,
        live_streams_are_counted_and_summed_up,
        an_edit_changes_what_it_names_and_makes_nothing,
        settings_are_every_nodes_and_keep_what_nobody_knows,
        a_streams_documents_are_its_own,
        expired_tokens_are_swept_out,
        a_token_is_used_by_one_at_a_time,
    }
    documents: {
        a_document_with_wrong_types_can_be_read_listed_and_claimed,
        a_document_with_missing_fields_has_defaults,
        renditions_of_others_do_not_lead_anywhere,
    }
    nodes: {
        a_node_is_listed_until_it_is_removed,
        a_heartbeat_keeps_fields_of_others,
        a_node_without_a_name_is_refused,
        a_broken_row_does_not_hide_the_others,
    }
    outbox: {
        an_event_is_kept_once_and_sent_in_the_order_of_its_stream,
        of_two_that_take_each_event_goes_to_one,
        one_target_leaves_room_for_others,
        an_end_is_withdrawn_by_the_publication_that_goes_on,
        old_events_are_given_up_and_too_many_dropped,
    }
    panel: {
        a_user_is_made_once_and_edited_field_by_field,
        of_many_first_users_one_is,
        shared_entries_are_compared_and_set,
        shared_entries_are_forgotten_after_their_end,
    }
}
