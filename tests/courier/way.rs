//! A thing between the couriers and the sandbox that looks at each request: a firewall, or a proxy on a slow line.

use phosphod::upstream::{self, Upstream};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The sandbox answers.
    Pass,
    /// This is the answer: status and body.
    Answer(u16, String),
    /// The connection is reset.
    Reset,
    /// Nothing is answered until the other side gives up.
    Silence,
}

type Judge = dyn Fn(&str, &str) -> Fate + Send + Sync;

/// The thing in between. `judge` sees head and body of each request; of a body over `most` bytes only so many are read.
#[derive(Clone)]
pub(crate) struct Way {
    judge: Arc<Mutex<Arc<Judge>>>,
    /// Announced lengths of the POSTs, and whether they passed.
    posts: Arc<Mutex<Vec<(usize, bool)>>>,
    address: String,
}

impl Way {
    /// To a sandbox at `base_url`.
    pub(crate) async fn to(
        base_url: &str,
        most: usize,
        judge: impl Fn(&str, &str) -> Fate + Send + Sync + 'static,
    ) -> Way {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let way = Way {
            judge: Arc::new(Mutex::new(Arc::new(judge))),
            posts: Arc::default(),
            address: listener.local_addr().expect("an address").to_string(),
        };
        let (behind, own) = (base_url.trim_start_matches("http://").to_owned(), way.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (behind, own) = (behind.clone(), own.clone());
                tokio::spawn(async move { own.serve(stream, &behind, most).await });
            }
        });
        way
    }

    /// From now on requests are judged like this.
    pub(crate) fn change(&self, judge: impl Fn(&str, &str) -> Fate + Send + Sync + 'static) {
        *self.judge.lock().expect("not poisoned") = Arc::new(judge);
    }

    /// Announced lengths of the POSTs so far, and whether they passed.
    pub(crate) fn posts(&self) -> Vec<(usize, bool)> {
        self.posts.lock().expect("not poisoned").clone()
    }

    pub(crate) fn upstream(&self, timeout: Duration) -> Upstream {
        let settings = upstream::Settings {
            base_url: format!("http://{}", self.address),
            timeout,
            ca_file: None,
            proxy: None,
        };
        Upstream::new(&settings).expect("a client")
    }

    async fn serve(&self, mut stream: TcpStream, behind: &str, most: usize) -> Option<()> {
        let (mut request, mut piece) = (Vec::new(), vec![0; 64 << 10]);
        let head_end = loop {
            if let Some(at) = request.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            let count = stream.read(&mut piece).await.ok().filter(|count| *count > 0)?;
            request.extend_from_slice(&piece[..count]);
        };
        let head = String::from_utf8_lossy(&request[..head_end]).into_owned();
        let length = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length: ")?
                    .parse()
                    .ok()
            })
            .unwrap_or(0);
        while request.len() < head_end + usize::min(length, most) {
            let count = stream.read(&mut piece).await.ok().filter(|count| *count > 0)?;
            request.extend_from_slice(&piece[..count]);
        }
        let judge = self.judge.lock().expect("not poisoned").clone();
        let fate = judge(&head, &String::from_utf8_lossy(&request[head_end..]));
        if head.starts_with("POST") {
            let passed = fate == Fate::Pass;
            self.posts.lock().expect("not poisoned").push((length, passed));
        }
        let reply = match fate {
            Fate::Pass => ask(behind, &request).await?,
            Fate::Answer(status, body) => format!(
                "HTTP/1.1 {status} x\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
            .into_bytes(),
            Fate::Reset => {
                stream.set_zero_linger().ok()?;
                return None;
            }
            Fate::Silence => {
                while stream.read(&mut piece).await.is_ok_and(|count| count > 0) {}
                return None;
            }
        };
        let end = reply.windows(4).position(|four| four == b"\r\n\r\n")?;
        stream.write_all(&reply[..end]).await.ok()?;
        stream.write_all(b"\r\nconnection: close").await.ok()?;
        stream.write_all(&reply[end..]).await.ok()
    }
}

/// One request to the sandbox; its reply.
async fn ask(behind: &str, request: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(behind).await.ok()?;
    let end = request.windows(4).position(|four| four == b"\r\n\r\n")?;
    stream.write_all(&request[..end]).await.ok()?;
    stream.write_all(b"\r\nconnection: close").await.ok()?;
    stream.write_all(&request[end..]).await.ok()?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await.ok()?;
    Some(reply)
}
