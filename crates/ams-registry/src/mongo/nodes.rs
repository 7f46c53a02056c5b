//! The nodes' rows in MongoDB: `clusterdb.clusternode`.

use ams_types::NodeId;
use futures_util::TryStreamExt;
use mongodb::Collection;
use mongodb::bson::{Document, RawDocumentBuf, doc};

use super::error::{classify, is_duplicate_key};
use super::{MongoRegistry, convert};
use crate::error::RegistryError;
use crate::record::node::{self, ClusterNodeRecord};
use crate::registry::NODE_LIST_MAX;

impl MongoRegistry {
    fn nodes(&self) -> Collection<RawDocumentBuf> {
        self.cluster_database().collection(node::COLLECTION)
    }

    pub(super) async fn do_heartbeat_node(&self, node: &ClusterNodeRecord) -> Result<(), RegistryError> {
        const OPERATION: &str = "a node's heartbeat";
        node.check_id(OPERATION)?;
        let update = convert::update(&node.fields_but_id());
        let nodes = self.nodes();
        // The first heartbeat of a row can meet its twin; the second finds the row.
        for _ in 0..2 {
            match nodes.update_one(doc! { "_id": &node.id }, update.clone()).upsert(true).await {
                Ok(_) => return Ok(()),
                Err(error) if is_duplicate_key(&error) => {}
                Err(error) => return Err(classify(OPERATION, &error)),
            }
        }
        Err(RegistryError::Contended { operation: OPERATION })
    }

    pub(super) async fn do_list_nodes(&self) -> Result<Vec<ClusterNodeRecord>, RegistryError> {
        const OPERATION: &str = "listing nodes";
        let limit = i64::try_from(NODE_LIST_MAX).unwrap_or(i64::MAX);
        let found = self.nodes().find(Document::new()).sort(doc! { "_id": 1 }).limit(limit).await;
        let found = found.map_err(|e| classify(OPERATION, &e))?;
        let documents: Vec<_> = found.try_collect().await.map_err(|e| classify(OPERATION, &e))?;
        let read = |document: &RawDocumentBuf| {
            self.misreads.note(node::COLLECTION, ClusterNodeRecord::from_json(convert::to_json(document)))
        };
        Ok(documents.iter().map(read).collect())
    }

    pub(super) async fn do_remove_node(&self, id: &NodeId) -> Result<bool, RegistryError> {
        let deleted = self.nodes().delete_one(doc! { "_id": id.as_str() }).await;
        Ok(deleted.map_err(|e| classify("removing a node", &e))?.deleted_count > 0)
    }
}
