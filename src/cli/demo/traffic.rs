//! What the pretend app logs: questions to an LLM and its answers in several languages, in sessions. Pure; the same every time.

use serde_json::{Value, json};
use std::ops::Range;

/// Turns of a conversation.
const TURNS: u32 = 4;
/// One event in so many gets feedback.
const FEEDBACK_EVERY: u32 = 20;
const FEEDBACK_AT: u32 = 7;
/// Two projects, so that there are lanes that do not wait for each other.
const PROJECTS: [&str; 2] = ["support-bot", "travel-guide"];
const MODELS: [&str; 2] = ["mistral-small", "gpt-4o-mini"];

/// Language, question, answer.
const PAIRS: [(&str, &str, &str); 10] = [
    (
        "en",
        "How do I reset my password?",
        "Open Settings, choose Security, then Reset password.",
    ),
    (
        "fr",
        "Où est passée ma commande ?",
        "Elle a quitté l'entrepôt ce matin et arrive demain.",
    ),
    (
        "de",
        "Kann ich die Rechnung später bezahlen?",
        "Ja, bis zu 30 Tage nach der Lieferung.",
    ),
    (
        "es",
        "¿Cuál es el mejor mes para visitar Sevilla?",
        "Abril: hace calor, pero no demasiado. 🌞",
    ),
    (
        "ja",
        "京都で静かなお寺はどこですか?",
        "大原の三千院は朝がとても静かです。",
    ),
    ("ar", "هل يمكنني تغيير موعد رحلتي؟", "نعم، حتى 24 ساعة قبل الإقلاع."),
    (
        "pt",
        "Vocês entregam aos sábados?",
        "Sim, das 9h às 13h, sem custo extra.",
    ),
    ("zh", "可以用支付宝付款吗?", "可以,结账时请选择“支付宝”。"),
    ("hi", "क्या यह ऐप हिंदी में है?", "हाँ, सेटिंग्स में भाषा बदलें।"),
    (
        "en",
        "Write a haiku about a quiet disk.",
        "Words sink to the rust,\nthe light above goes dark. Still,\nmorning finds them all.",
    ),
];

/// One call of the app's log function.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    pub(super) project: &'static str,
    pub(super) task_id: String,
    /// The event as JSON text.
    pub(super) json: String,
}

/// A user's judgement of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Feedback {
    pub(super) project: &'static str,
    pub(super) task_id: String,
    /// "success" or "failure".
    pub(super) flag: &'static str,
    pub(super) notes: &'static str,
}

/// The events with these numbers.
pub(super) fn events(numbers: Range<u32>) -> Vec<Event> {
    numbers.map(event).collect()
}

/// The feedback that users give on these events.
pub(super) fn feedback(numbers: Range<u32>) -> Vec<Feedback> {
    let judged = numbers.filter(|n| n % FEEDBACK_EVERY == FEEDBACK_AT);
    judged
        .map(|n| {
            let pleased = n / FEEDBACK_EVERY % 4 != 3;
            Feedback {
                project: project(n),
                task_id: task_id(n),
                flag: if pleased { "success" } else { "failure" },
                notes: if pleased {
                    "just what I needed 👍"
                } else {
                    "not what I asked for"
                },
            }
        })
        .collect()
}

/// An event that the sandbox is told to fail on, and with it on its whole batch. What is known to break the API is
/// refused at the door already; this is what nobody knows of yet.
pub(super) fn poison() -> Event {
    let task_id = "demo-poison".to_owned();
    let project = PROJECTS[0];
    let json = format!(
        "{{\"task_id\":\"{task_id}\",\"project_id\":\"{project}\",\"input\":\"How sure are you?\",\
         \"output\":\"Very.\",\"metadata\":{{\"perplexity\":1.02}}}}"
    );
    Event {
        project,
        task_id,
        json,
    }
}

fn project(n: u32) -> &'static str {
    PROJECTS[(n / TURNS) as usize % PROJECTS.len()]
}

fn task_id(n: u32) -> String {
    format!("demo-{n:05}")
}

fn event(n: u32) -> Event {
    let (language, question, answer) = PAIRS[n as usize % PAIRS.len()];
    let model = MODELS[n as usize / 3 % MODELS.len()];
    let event: Value = json!({
        "task_id": task_id(n),
        "project_id": project(n),
        "session_id": format!("session-{:04}", n / TURNS),
        "user_id": format!("user-{:03}", n / (3 * TURNS)),
        "input": question,
        "output": answer,
        "raw_input": {"model": model, "messages": [{"role": "user", "content": question}]},
        "metadata": {"language": language, "turn": n % TURNS, "latency_ms": 180 + n * 37 % 900, "temperature": 0.70},
    });
    Event {
        project: project(n),
        task_id: task_id(n),
        json: event.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event as Checked, Stamps};
    use std::collections::BTreeSet;

    fn accepted(event: &Event) -> Checked {
        let stamps = Stamps {
            project: None,
            now_s: 0,
            task: uuid::Uuid::nil(),
        };
        Checked::parse(event.json.as_bytes(), &stamps).expect("the door takes it")
    }

    #[test]
    fn every_event_is_one_that_the_door_takes_under_an_id_of_its_own() {
        let mut all = events(0..500);
        all.push(poison());
        let ids: BTreeSet<_> = all.iter().map(|event| event.task_id.as_str()).collect();
        assert_eq!(ids.len(), all.len());
        for event in &all {
            let checked = accepted(event);
            assert_eq!(checked.task().as_str(), event.task_id);
            assert_eq!(checked.project().as_str(), event.project);
        }
    }

    #[test]
    fn feedback_is_about_events_that_were_logged_and_of_both_kinds() {
        let logged = events(0..500);
        let given = feedback(0..500);
        assert_eq!(given.len(), 25);
        for one in &given {
            assert!(
                logged
                    .iter()
                    .any(|event| event.task_id == one.task_id && event.project == one.project)
            );
        }
        let flags: BTreeSet<_> = given.iter().map(|one| one.flag).collect();
        assert_eq!(flags.len(), 2);
    }

    #[test]
    fn parts_make_up_the_whole() {
        let parts: Vec<_> = [0..7, 7..300, 300..500].into_iter().flat_map(events).collect();
        assert_eq!(parts, events(0..500));
    }
}
