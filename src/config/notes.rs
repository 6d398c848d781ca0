//! What a configuration leaves out that events need sooner or later.
use super::Settings;
use crate::board::Board;

impl Settings {
    /// Why events would only be queued, with the remedy. `None` when there is a key for what names no project.
    pub fn lacks_key(&self) -> Option<String> {
        let keys = &self.delivery.project_keys;
        if self.delivery.default_key.is_some() {
            return None;
        }
        match &self.intake.default_project {
            _ if keys.is_empty() => Some(
                "no API key: events are only queued; set PHOSPHO_API_KEY or upstream.api_key_file".to_owned(),
            ),
            Some(project) if !keys.contains_key(project) => Some(format!(
                "no API key for the default project {project}: its events are only queued; set PHOSPHO_API_KEY or \
                 upstream.projects.{project}.api_key_file"
            )),
            _ => None,
        }
    }

    /// Why events that name no project are refused, with the remedy. `None` when there is a default project.
    pub fn lacks_project(&self) -> Option<&'static str> {
        self.intake.default_project.is_none().then_some(
            "no default project: requests must name one (/v2/log/{project_id}, or a project_id in the body); set \
             PHOSPHO_PROJECT_ID or upstream.project_id",
        )
    }

    /// Says what is missing, and what is most likely not meant, in the log and among the hints of `/status`.
    pub fn announce(&self, board: &Board) {
        if let Some(sentence) = self.lacks_key() {
            tracing::warn!("{sentence}");
        }
        if let Some(sentence) = self.lacks_project() {
            tracing::info!("{sentence}");
        }
        for warning in &self.warnings {
            tracing::warn!("configuration: {warning}");
        }
        let hints: Vec<String> = self
            .warnings
            .iter()
            .filter(|warning| warning.is_hint)
            .map(ToString::to_string)
            .collect();
        let hint = match hints.as_slice() {
            [] => None,
            [first] => Some(first.clone()),
            [first, more @ ..] => Some(format!(
                "{first} (and {} more: phosphod config check)",
                more.len()
            )),
        };
        board.notice("configuration").set(hint.as_deref());
    }
}
