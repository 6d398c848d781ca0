//! The pretend app: it logs over HTTP and over the Unix socket, and keeps what it was acknowledged.

use super::child::Daemon;
use super::traffic::{Event, Feedback};
use serde::Deserialize;
use serde_json::json;
use std::path::Path;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Task ids that the daemon acknowledged, in order.
#[derive(Debug, Default, Clone)]
pub(super) struct Acknowledged {
    pub(super) events: Vec<String>,
    pub(super) feedback: Vec<String>,
}

/// One of the ways in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Http,
    UnixHttp,
    UnixLines,
}

const DOORS: [Door; 3] = [Door::Http, Door::UnixHttp, Door::UnixLines];

/// The app, connected to one life of the daemon.
pub(super) struct App {
    url: String,
    http: reqwest::Client,
    unix: reqwest::Client,
    lines: BufReader<UnixStream>,
    requests: usize,
}

#[derive(Deserialize)]
struct Logged {
    logged_events: Vec<Answer>,
}

/// The answer for one event or feedback: an id once it is on disk, or what is wrong.
#[derive(Deserialize)]
struct Answer {
    task_id: Option<String>,
    #[serde(alias = "error_in_log")]
    error: Option<String>,
}

impl Answer {
    /// The id, where it is the expected one.
    fn acknowledged(self, expected: &str) -> Result<String, String> {
        match (self.task_id, self.error) {
            (Some(id), None) if id == expected => Ok(id),
            (_, Some(error)) => Err(format!("the daemon refused {expected}: {error}")),
            (other, None) => Err(format!("the daemon answered {other:?} for {expected}")),
        }
    }
}

impl App {
    /// Opens a connection each way.
    pub(super) async fn connect(daemon: &Daemon) -> Result<Self, String> {
        let stream = UnixStream::connect(&daemon.unix)
            .await
            .map_err(|fault| format!("the daemon's Unix socket cannot be reached: {fault}"))?;
        Ok(Self {
            url: daemon.url.clone(),
            http: client(None)?,
            unix: client(Some(&daemon.unix))?,
            lines: BufReader::new(stream),
            requests: 0,
        })
    }

    /// Logs these events together and then gives this feedback, by the next of the doors.
    pub(super) async fn send(
        &mut self,
        events: &[Event],
        feedback: &[Feedback],
        kept: &mut Acknowledged,
    ) -> Result<(), String> {
        let Some(first) = events.first() else {
            return Ok(());
        };
        let door = DOORS[self.requests % DOORS.len()];
        self.requests += 1;
        let answers = match door {
            Door::Http => {
                let url = format!("{}/v2/log/{}", self.url, first.project);
                logged(&post(&self.http, url, batch(events)).await?)?
            }
            Door::UnixHttp => {
                let url = "http://localhost/log".to_owned();
                logged(&post(&self.unix, url, batch(events)).await?)?
            }
            Door::UnixLines => self.ask(events.iter().map(|event| event.json.as_str())).await?,
        };
        if answers.len() != events.len() {
            return Err(format!(
                "{} answers came for {} events",
                answers.len(),
                events.len()
            ));
        }
        for (answer, event) in answers.into_iter().zip(events) {
            kept.events.push(answer.acknowledged(&event.task_id)?);
        }
        for one in feedback {
            self.judge(door, one).await?;
            kept.feedback.push(one.task_id.clone());
        }
        Ok(())
    }

    async fn judge(&mut self, door: Door, one: &Feedback) -> Result<(), String> {
        let Feedback {
            project,
            task_id,
            flag,
            notes,
        } = one;
        match door {
            Door::Http => {
                let url = format!("{}/v2/tasks/{task_id}/human-eval", self.url);
                let body =
                    json!({"human_eval": flag, "source": "user", "notes": notes, "project_id": project});
                post(&self.http, url, body.to_string()).await.map(drop)
            }
            Door::UnixHttp => {
                let body = json!({"task_id": task_id, "flag": flag, "source": "user", "notes": notes,
                    "project_id": project});
                let url = "http://localhost/feedback".to_owned();
                post(&self.unix, url, body.to_string()).await.map(drop)
            }
            Door::UnixLines => {
                let body = json!({"kind": "feedback", "task_id": task_id, "flag": flag, "source": "user",
                    "notes": notes, "project_id": project});
                let answers = self.ask([body.to_string().as_str()].into_iter()).await?;
                for answer in answers {
                    answer.acknowledged(task_id)?;
                }
                Ok(())
            }
        }
    }

    /// Writes lines and reads an answer for each.
    async fn ask(&mut self, lines: impl ExactSizeIterator<Item = &str>) -> Result<Vec<Answer>, String> {
        let broken = |fault: std::io::Error| format!("the daemon's Unix socket broke: {fault}");
        let count = lines.len();
        let mut text = String::new();
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        let stream = self.lines.get_mut();
        stream.write_all(text.as_bytes()).await.map_err(broken)?;
        let mut answers = Vec::with_capacity(count);
        let mut line = String::new();
        for _ in 0..count {
            line.clear();
            self.lines.read_line(&mut line).await.map_err(broken)?;
            answers.push(serde_json::from_str(&line).map_err(|fault| misread(&line, &fault))?);
        }
        Ok(answers)
    }
}

/// An HTTP client, over a Unix socket where one is given. Proxies are for the outside world.
pub(super) fn client(unix: Option<&Path>) -> Result<reqwest::Client, String> {
    let builder = reqwest::Client::builder().no_proxy();
    let builder = match unix {
        Some(path) => builder.unix_socket(path.to_owned()),
        None => builder,
    };
    builder
        .build()
        .map_err(|fault| format!("no HTTP client could be made: {fault}"))
}

fn batch(events: &[Event]) -> String {
    let events: Vec<_> = events.iter().map(|event| event.json.as_str()).collect();
    format!("{{\"batched_log_events\":[{}]}}", events.join(","))
}

/// POSTs JSON; anything but a 200 is a fault here.
async fn post(client: &reqwest::Client, url: String, body: String) -> Result<String, String> {
    let request = client
        .post(url)
        .header("content-type", "application/json")
        .body(body);
    let fault = |fault: reqwest::Error| format!("the daemon cannot be reached: {fault}");
    let reply = request.send().await.map_err(fault)?;
    let status = reply.status().as_u16();
    let text = reply.text().await.map_err(fault)?;
    match status {
        200 => Ok(text),
        _ => Err(format!("the daemon answered {status}: {text}")),
    }
}

fn logged(text: &str) -> Result<Vec<Answer>, String> {
    let logged: Logged = serde_json::from_str(text).map_err(|fault| misread(text, &fault))?;
    Ok(logged.logged_events)
}

fn misread(text: &str, fault: &serde_json::Error) -> String {
    format!("the daemon's answer {text:?} is not understood: {fault}")
}
