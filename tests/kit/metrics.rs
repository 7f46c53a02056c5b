//! A node's figures, read from its `/metrics`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::node::NodeProcess;
use crate::{eventually, http};

/// Figures by name; those with labels are added up.
pub type Figures = BTreeMap<String, f64>;

/// All figures of the node whose base URL this is.
///
/// # Errors
/// It gave none.
pub async fn figures(url: &str) -> Result<Figures> {
    let answer = http::get(&format!("{url}/metrics")).await?;
    ensure!(answer.status == 200, "/metrics answered {}: {}", answer.status, answer.body);
    let mut figures = Figures::new();
    for line in answer.body.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty()) {
        let (name, value) = line.rsplit_once(' ').with_context(|| format!("no figure: {line}"))?;
        let name = name.split('{').next().unwrap_or(name).trim();
        *figures.entry(name.to_owned()).or_default() += value.parse::<f64>().with_context(|| line.to_owned())?;
    }
    Ok(figures)
}

/// One figure of the node whose base URL this is.
///
/// # Errors
/// It has none of that name.
pub async fn metric(url: &str, name: &str) -> Result<f64> {
    figures(url).await?.get(name).copied().with_context(|| format!("no figure {name} at {url}"))
}

impl NodeProcess {
    /// One of its figures.
    ///
    /// # Errors
    /// As [`metric`].
    pub async fn metric(&self, name: &str) -> Result<f64> {
        metric(&self.url(""), name).await
    }

    /// Waits until a figure is as wanted.
    ///
    /// # Errors
    /// It was not within `limit`; says what it was.
    pub async fn wait_metric(&self, name: &str, limit: Duration, wanted: impl Fn(f64) -> bool) -> Result<f64> {
        let waited = eventually(&format!("{name} as wanted"), limit, || async {
            self.metric(name).await.ok().filter(|value| wanted(*value))
        })
        .await;
        match waited {
            Ok(value) => Ok(value),
            Err(error) => Err(error.context(format!("{name} at {} is {:?}", self.http, self.metric(name).await))),
        }
    }
}
