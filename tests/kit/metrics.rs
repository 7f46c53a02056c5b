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

/// How many durations were not above each bound, in seconds.
#[derive(Clone, Debug, Default)]
pub struct Histogram(Vec<(f64, f64)>);

impl Histogram {
    /// What came after `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let of = |bound: f64| earlier.0.iter().find(|(b, _)| *b == bound).map_or(0.0, |(_, count)| *count);
        Self(self.0.iter().map(|(bound, count)| (*bound, count - of(*bound))).collect())
    }

    /// How many there are.
    pub fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// The share that is not above a bound, which must be one of its own.
    pub fn within(&self, bound: Duration) -> f64 {
        let count = self.0.iter().find(|(b, _)| *b == bound.as_secs_f64()).map_or(f64::NAN, |(_, count)| *count);
        count / self.count()
    }

    /// The value that a share of them is not above, as Prometheus estimates it: evenly spread within a bucket.
    pub fn quantile(&self, share: f64) -> Duration {
        let (mut low, mut below) = (0.0, 0.0);
        for (bound, count) in &self.0 {
            if *count >= share * self.count() {
                let into = (share * self.count() - below) / (count - below).max(1.0);
                let estimate = if bound.is_finite() { low + (bound - low) * into } else { low };
                return Duration::from_secs_f64(estimate);
            }
            (low, below) = (*bound, *count);
        }
        Duration::ZERO
    }
}

impl NodeProcess {
    /// One of its histograms.
    ///
    /// # Errors
    /// It has none of that name.
    pub async fn histogram(&self, name: &str) -> Result<Histogram> {
        let answer = http::get(&self.url("/metrics")).await?;
        let mut buckets = Vec::new();
        for line in answer.body.lines() {
            let Some(rest) = line.strip_prefix(name).and_then(|rest| rest.strip_prefix("_bucket{le=\"")) else {
                continue;
            };
            let (bound, count) = rest.split_once("\"} ").with_context(|| format!("no bucket: {line}"))?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse()? };
            buckets.push((bound, count.parse()?));
        }
        ensure!(!buckets.is_empty(), "no histogram {name} at {}", self.http);
        Ok(Histogram(buckets))
    }
}
