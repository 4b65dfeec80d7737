//! What the API server says of itself.

use std::collections::BTreeMap;

use harness::ring::{GROUP, RESOURCE};
use harness::{Metrics, Result};
use kube::Client;

const REQUESTS: &str = "apiserver_request_total";
const LONG_RUNNING: &str = "apiserver_longrunning_requests";

/// Requests so far, and open watches, of the ring's resource.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Requests {
    /// Ended requests by verb.
    by_verb: BTreeMap<String, f64>,
    /// Those of them that were refused: status 400 or more.
    refused: f64,
    /// Watches that are open.
    pub(crate) open_watches: f64,
    /// Ended requests for everything else, from everybody.
    elsewhere: f64,
}

/// Requests of some time.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Difference {
    /// By verb, without those of which there were none.
    pub(crate) by_verb: BTreeMap<String, f64>,
    /// As in [`Requests`].
    pub(crate) refused: f64,
    /// As in [`Requests`].
    pub(crate) elsewhere: f64,
}

impl Requests {
    /// Asks the API server.
    pub(crate) async fn read(client: &Client) -> Result<Self> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        let text = client.request_text(request).await?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        // A scrape has tens of thousands of lines; two names of them are of interest.
        let lines = text.lines().filter(|line| line.starts_with(REQUESTS) || line.starts_with(LONG_RUNNING));
        let metrics = Metrics::parse(&lines.collect::<Vec<_>>().join("\n"));
        let mut requests = Self {
            open_watches: metrics.sum(LONG_RUNNING, &[("group", GROUP), ("resource", RESOURCE), ("verb", "WATCH")]),
            ..Self::default()
        };
        for labels in metrics.labels(REQUESTS) {
            let pairs: Vec<(&str, &str)> = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            let count = metrics.get(REQUESTS, &pairs).unwrap_or_default();
            let label = |name: &str| labels.get(name).map(String::as_str).unwrap_or_default();
            if (label("group"), label("resource")) != (GROUP, RESOURCE) {
                requests.elsewhere += count;
                continue;
            }
            *requests.by_verb.entry(label("verb").to_owned()).or_default() += count;
            if label("code").parse::<u16>().is_ok_and(|code| code >= 400) {
                requests.refused += count;
            }
        }
        requests
    }

    /// What came after `before`.
    pub(crate) fn since(&self, before: &Self) -> Difference {
        let less = |(verb, count): (&String, &f64)| {
            let count = count - before.by_verb.get(verb).copied().unwrap_or_default();
            (count > 0.0).then(|| (verb.clone(), count))
        };
        Difference {
            by_verb: self.by_verb.iter().filter_map(less).collect(),
            refused: self.refused - before.refused,
            elsewhere: self.elsewhere - before.elsewhere,
        }
    }
}

impl Difference {
    /// Without the driver's own requests of this verb.
    #[must_use]
    pub(crate) fn without(mut self, verb: &str, count: f64) -> Self {
        if let Some(all) = self.by_verb.get_mut(verb) {
            *all = (*all - count).max(0.0);
        }
        self.by_verb.retain(|_, count| *count > 0.0);
        self
    }

    /// Divided by the number of hops.
    #[must_use]
    pub(crate) fn per(mut self, hops: f64) -> Self {
        self.by_verb.values_mut().for_each(|count| *count /= hops);
        self.elsewhere /= hops;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# HELP apiserver_request_total x\n\
        apiserver_request_total{code=\"200\",group=\"ring.wasm-operator.dev\",resource=\"testresources\",verb=\"PUT\"} 5\n\
        apiserver_request_total{code=\"200\",group=\"\",resource=\"leases\",verb=\"PUT\"} 100\n\
        apiserver_longrunning_requests{group=\"ring.wasm-operator.dev\",resource=\"testresources\",verb=\"WATCH\"} 3\n\
        apiserver_request_total_other 7\n";
    const AFTER: &str = "\
        apiserver_request_total{code=\"200\",group=\"ring.wasm-operator.dev\",resource=\"testresources\",verb=\"PUT\"} 24\n\
        apiserver_request_total{code=\"409\",group=\"ring.wasm-operator.dev\",resource=\"testresources\",verb=\"PUT\"} 1\n\
        apiserver_request_total{code=\"200\",group=\"ring.wasm-operator.dev\",resource=\"testresources\",verb=\"APPLY\"} 4\n\
        apiserver_request_total{code=\"200\",group=\"\",resource=\"leases\",verb=\"PUT\"} 110\n\
        apiserver_longrunning_requests{group=\"ring.wasm-operator.dev\",resource=\"testresources\",verb=\"WATCH\",version=\"v1\"} 11\n";

    #[test]
    fn requests_are_counted_by_verb_and_the_drivers_are_left_out() {
        let (before, after) = (Requests::parse(BEFORE), Requests::parse(AFTER));

        assert_eq!((before.open_watches, after.open_watches), (3.0, 11.0));
        let difference = after.since(&before).without("APPLY", 4.0).per(10.0);
        assert_eq!(difference.by_verb, BTreeMap::from([("PUT".to_owned(), 2.0)]));
        assert_eq!((difference.refused, difference.elsewhere), (1.0, 1.0));
    }

    #[test]
    fn an_empty_scrape_has_nothing() {
        assert_eq!(Requests::parse(""), Requests::default());
        assert!(Requests::default().since(&Requests::default()).by_verb.is_empty());
    }
}
