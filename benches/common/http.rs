//! Requests as an app sends them, and where their replies end.
use super::Failure;
use serde_json::json;

/// A body with so many events of about 1 KB, all different, so that they compress no better than those of an app.
pub(crate) fn body(random: &mut fastrand::Rng, events: usize) -> String {
    let mut text = |bytes: usize| -> String {
        let words = std::iter::repeat_with(|| {
            let seed = random.u64(..4_000);
            let mut word = fastrand::Rng::with_seed(seed);
            let length = word.usize(2..10);
            std::iter::repeat_with(|| word.lowercase())
                .take(length)
                .chain([' '])
                .collect::<String>()
        });
        let mut text = String::new();
        for word in words {
            if text.len() >= bytes {
                break;
            }
            text.push_str(&word);
        }
        text
    };
    let batch: Vec<_> = (0..events)
        .map(|_| {
            json!({
                "input": text(400), "output": text(450), "session_id": text(20), "user_id": "user-1",
                "metadata": {"model": "bench", "temperature": 0.7},
            })
        })
        .collect();
    json!({"batched_log_events": batch}).to_string()
}

/// The request that logs a body.
pub(crate) fn request(project: &str, body: &str) -> String {
    format!(
        "POST /v2/log/{project} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Length of the reply that begins here, head and body, once its head is there.
pub(crate) fn reply_length(read: &[u8]) -> Result<Option<usize>, Failure> {
    let Some(head) = read.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&read[..head])?.to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .ok_or("a reply without its length")?;
    Ok(Some(head + 4 + length.parse::<usize>()?))
}
