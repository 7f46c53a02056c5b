//! A real MongoDB, as its other users see it: the documents, through the driver.

use anyhow::{Context, Result};
use mongodb::bson::{Document, doc};
use mongodb::{Client, Collection};

pub use mongodb::bson;

/// The standalone server's URI, which `tests/run` sets.
///
/// # Errors
/// `AMS_TEST_MONGO` is not set.
pub fn uri() -> Result<String> {
    variable("AMS_TEST_MONGO")
}

/// The replica set's URI, which `tests/run` sets.
///
/// # Errors
/// `AMS_TEST_MONGO_RS` is not set.
pub fn replica_set_uri() -> Result<String> {
    variable("AMS_TEST_MONGO_RS")
}

fn variable(name: &str) -> Result<String> {
    std::env::var(name)
        .with_context(|| format!("{name} is not set: run this through tests/run, or tests/env/with-mongo"))
}

/// Databases of one test.
#[derive(Clone, Debug)]
pub struct Databases {
    client: Client,
    /// Put before every database name.
    pub prefix: String,
}

impl Databases {
    /// New databases on the standalone server.
    ///
    /// # Errors
    /// No server.
    pub async fn new() -> Result<Self> {
        Self::on(&uri()?).await
    }

    /// New databases on this server.
    ///
    /// # Errors
    /// The URI cannot be read.
    pub async fn on(uri: &str) -> Result<Self> {
        let prefix = format!("t{:08x}_", rand::random::<u32>());
        Ok(Self { client: Client::with_uri_str(uri).await?, prefix })
    }

    /// A collection, to write what a node is to find.
    pub fn collection(&self, database: &str, collection: &str) -> Collection<Document> {
        self.client.database(&format!("{}{database}", self.prefix)).collection(collection)
    }

    /// Every document of a collection that matches.
    ///
    /// # Errors
    /// The server did not answer.
    pub async fn find(&self, database: &str, collection: &str, filter: Document) -> Result<Vec<Document>> {
        let mut cursor = self.collection(database, collection).find(filter).await?;
        let mut found = Vec::new();
        while cursor.advance().await? {
            found.push(cursor.deserialize_current()?);
        }
        Ok(found)
    }

    /// The `broadcast` record of a stream.
    ///
    /// # Errors
    /// The server did not answer.
    pub async fn broadcast(&self, app: &str, stream: &str) -> Result<Option<Document>> {
        Ok(self.find(&app.to_lowercase(), "broadcast", doc! {"streamId": stream}).await?.pop())
    }

    /// The `StreamInfo` documents of a stream.
    ///
    /// # Errors
    /// The server did not answer.
    pub async fn stream_infos(&self, app: &str, stream: &str) -> Result<Vec<Document>> {
        self.find(&app.to_lowercase(), "StreamInfo", doc! {"streamId": stream}).await
    }

    /// The `clusternode` rows.
    ///
    /// # Errors
    /// The server did not answer.
    pub async fn nodes(&self) -> Result<Vec<Document>> {
        self.find("clusterdb", "clusternode", doc! {}).await
    }

    /// Drops what the test left.
    pub async fn drop_all(&self) {
        let names = self.client.list_database_names().await.unwrap_or_default();
        for name in names.into_iter().filter(|n| n.starts_with(&self.prefix)) {
            let _ = self.client.database(&name).drop().await;
        }
    }
}
