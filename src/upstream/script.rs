//! An upstream that is a function of a test: no sockets, and time is the runtime's.

use super::Upstream;
use crate::secret::Secret;
use crate::verdict::{Failure, FailureKind, Outcome};
use reqwest::Client;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// One attempt.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    /// The path behind `/v2/`, in segments.
    pub(crate) path: Vec<String>,
    pub(crate) key: String,
    /// Absent: a GET.
    pub(crate) body: Option<Vec<u8>>,
}

type Answering = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// What answers.
#[derive(Clone)]
pub(crate) struct Script(Arc<dyn Fn(Ask) -> Answering + Send + Sync>);

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script")
    }
}

impl Script {
    /// Asks, for so long.
    pub(super) async fn ask(
        &self,
        path: &[&str],
        key: &Secret,
        body: Option<Vec<u8>>,
        timeout: Duration,
    ) -> Outcome {
        let ask = Ask {
            path: path.iter().map(|part| (*part).to_owned()).collect(),
            key: key.expose().to_owned(),
            body,
        };
        let timed_out = Outcome::Failed(Failure {
            kind: FailureKind::Timeout,
            detail: "time ran out".into(),
        });
        tokio::time::timeout(timeout, (self.0)(ask))
            .await
            .unwrap_or(timed_out)
    }
}

impl Upstream {
    /// An upstream that asks a function.
    pub(crate) fn scripted<F: Future<Output = Outcome> + Send + 'static>(
        timeout: Duration,
        answer: impl Fn(Ask) -> F + Send + Sync + 'static,
    ) -> Upstream {
        Upstream {
            client: Client::new(),
            unpooled: Client::new(),
            script: Some(Script(Arc::new(move |ask| Box::pin(answer(ask))))),
            base: "scripted:".into(),
            timeout,
            secrets: crate::secret::Secrets::default(),
            room: super::Room::default(),
        }
    }
}
