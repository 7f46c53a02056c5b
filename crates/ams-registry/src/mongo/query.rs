//! Lists, counts and sums of streams' records in MongoDB.
//!
//! The server compares fields and looks for plain text; patterns are run here, over ids and names alone.

use ams_types::AppName;
use futures_util::TryStreamExt;
use mongodb::bson::{Bson, Document, RawDocumentBuf, doc};

use super::MongoRegistry;
use super::error::classify;
use crate::error::RegistryError;
use crate::query::{BroadcastQuery, LiveTotals, SEARCH_RECORDS_MAX, Search};
use crate::record::broadcast::BroadcastRecord;
use crate::registry::BROADCAST_LIST_MAX;
use crate::status::Status;

/// What the server can compare itself.
fn filter(query: &BroadcastQuery) -> Document {
    let mut filter = Document::new();
    let equal = [("type", &query.kind), ("mainTrackStreamId", &query.main_track), ("role", &query.role)];
    for (name, wanted) in equal {
        if let Some(wanted) = wanted {
            filter.insert(name, doc! { "$eq": wanted });
        }
    }
    if let Some(since) = query.live_since {
        filter.insert("status", Status::Broadcasting.as_str());
        filter.insert("updateTime", doc! { "$gte": since });
    }
    if let Some(text) = query.search.as_ref().and_then(Search::plain) {
        let found = doc! { "$regex": regex::escape(text), "$options": "i" };
        filter.insert("$or", vec![doc! { "streamId": found.clone() }, doc! { "name": found }]);
    }
    filter
}

fn order(query: &BroadcastQuery) -> Document {
    let mut order = Document::new();
    if let Some(sort) = &query.sort {
        order.insert(sort.field, if sort.descending { -1 } else { 1 });
    }
    order.insert("_id", 1);
    order
}

impl MongoRegistry {
    pub(super) async fn do_query(
        &self,
        app: &AppName,
        query: &BroadcastQuery,
        offset: usize,
        size: usize,
    ) -> Result<Vec<BroadcastRecord>, RegistryError> {
        const OPERATION: &str = "searching broadcasts";
        let size = size.min(BROADCAST_LIST_MAX);
        if size == 0 {
            return Ok(Vec::new());
        }
        let broadcasts = self.broadcasts(app)?;
        let failed = |e: mongodb::error::Error| classify(OPERATION, &e);
        let Some(search) = query.search.as_ref().filter(|search| search.plain().is_none()) else {
            // The server takes a signed number.
            let skipped = u64::try_from(offset).unwrap_or(u64::MAX).min(i64::MAX.unsigned_abs());
            let limit = i64::try_from(size).unwrap_or(1);
            let found = broadcasts.find(filter(query)).sort(order(query)).skip(skipped).limit(limit).await;
            let documents: Vec<RawDocumentBuf> = found.map_err(failed)?.try_collect().await.map_err(failed)?;
            return Ok(documents.iter().map(|document| self.read_broadcast(document)).collect());
        };
        let ids = self.scan(app, query, search, offset.saturating_add(size)).await?;
        let ids: Vec<String> = ids.into_iter().skip(offset).take(size).collect();
        let found = broadcasts.find(doc! { "streamId": { "$in": &ids } }).await.map_err(failed)?;
        let documents: Vec<RawDocumentBuf> = found.try_collect().await.map_err(failed)?;
        let mut records: Vec<_> = documents.iter().map(|document| self.read_broadcast(document)).collect();
        records.sort_by_key(|record| ids.iter().position(|id| *id == record.stream_id));
        Ok(records)
    }

    /// Ids of the first `enough` records that a pattern finds.
    async fn scan(
        &self,
        app: &AppName,
        query: &BroadcastQuery,
        search: &Search,
        enough: usize,
    ) -> Result<Vec<String>, RegistryError> {
        const OPERATION: &str = "searching broadcasts";
        let mut ids = Vec::new();
        let names = doc! { "streamId": 1, "name": 1 };
        let limit = i64::try_from(SEARCH_RECORDS_MAX).unwrap_or(i64::MAX);
        let found = self.broadcasts(app)?.find(filter(query)).projection(names).sort(order(query)).limit(limit).await;
        let mut found = found.map_err(|e| classify(OPERATION, &e))?;
        while ids.len() < enough
            && let Some(document) = found.try_next().await.map_err(|e| classify(OPERATION, &e))?
        {
            let text = |name| document.get_str(name).ok();
            if let Some(id) = text("streamId").filter(|id| search.finds(id, text("name"))) {
                ids.push(id.to_owned());
            }
        }
        Ok(ids)
    }

    pub(super) async fn do_count_matching(&self, app: &AppName, query: &BroadcastQuery) -> Result<u64, RegistryError> {
        if let Some(search) = query.search.as_ref().filter(|search| search.plain().is_none()) {
            return Ok(self.scan(app, query, search, usize::MAX).await?.len() as u64);
        }
        let count = self.broadcasts(app)?.count_documents(filter(query)).await;
        count.map_err(|e| classify("counting broadcasts", &e))
    }

    pub(super) async fn do_live_totals(&self, app: &AppName, since_ms: i64) -> Result<LiveTotals, RegistryError> {
        const OPERATION: &str = "summing up live streams";
        let live = BroadcastQuery { live_since: Some(since_ms), ..BroadcastQuery::default() };
        let sums = doc! {
            "_id": null,
            "streams": { "$sum": 1 },
            "webrtc": { "$sum": "$webRTCViewerCount" },
            "hls": { "$sum": "$hlsViewerCount" },
            "dash": { "$sum": "$dashViewerCount" },
            "rtmp": { "$sum": "$rtmpViewerCount" },
        };
        let steps = [doc! { "$match": filter(&live) }, doc! { "$group": sums }];
        let found = self.broadcasts(app)?.aggregate(steps).await.map_err(|e| classify(OPERATION, &e))?;
        let groups: Vec<Document> = found.try_collect().await.map_err(|e| classify(OPERATION, &e))?;
        let Some(group) = groups.first() else { return Ok(LiveTotals::default()) };
        let number = |name: &str| match group.get(name) {
            Some(Bson::Int32(number)) => i64::from(*number),
            Some(Bson::Int64(number)) => *number,
            #[expect(clippy::cast_possible_truncation, reason = "a sum that a shell's doubles are part of")]
            Some(Bson::Double(number)) => *number as i64,
            _ => 0,
        };
        Ok(LiveTotals {
            streams: u64::try_from(number("streams")).unwrap_or(0),
            webrtc: number("webrtc"),
            hls: number("hls"),
            dash: number("dash"),
            rtmp: number("rtmp"),
        })
    }
}
