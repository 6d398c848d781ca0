//! One HTTP attempt against the phospho API. No policy, no retry.
use crate::ids::{ProjectId, TaskId};
use crate::secret::Secret;
use crate::verdict::Outcome;
use std::path::PathBuf;
use std::time::Duration;

/// How the upstream is reached (`[upstream]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Without `/v2`. Default `https://api.phospho.ai`.
    pub base_url: String,
    /// Longest that a log request or a read-back may take. Default 30 s.
    pub timeout: Duration,
    /// Further trusted certificates, PEM.
    pub ca_file: Option<PathBuf>,
    /// Proxy URL.
    pub proxy: Option<String>,
}

/// Why no client could be made. The sentence names the key.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UpstreamError(pub String);

/// A client with its connection pool. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Upstream {}

impl Upstream {
    /// Builds the client.
    pub fn new(_settings: &Settings) -> Result<Self, UpstreamError> {
        todo!()
    }
    /// `POST /v2/log/{project}`.
    pub async fn post_log(&self, _project: &ProjectId, _key: &Secret, _body: Vec<u8>) -> Outcome {
        todo!()
    }
    /// `POST /v2/tasks/{task}/human-eval`; allows 40 s, because the API holds it for up to 31 s (contract.md section 2).
    pub async fn post_feedback(&self, _task: &TaskId, _key: &Secret, _body: Vec<u8>) -> Outcome {
        todo!()
    }
    /// `GET /v2/tasks/{task}`: 200 or 404 tells whether a task is stored.
    pub async fn get_task(&self, _task: &TaskId, _key: &Secret) -> Outcome {
        todo!()
    }
}
