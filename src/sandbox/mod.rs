//! A local stand-in for the phospho API, as `contract.md` describes it: for people who develop without a key, and the
//! oracle of this package's own tests. It checks events with code of its own, keeps what arrived byte for byte, and
//! records as a *surprise* whatever the contract does not know.
//!
//! Two listeners: the API, which can be made to fail in many ways ([`Switches`]), and the control plane under
//! `/sandbox/`, which goes on when the API is down. The control routes are served on the API listener too while
//! that is up. In-process, [`Sandbox`] offers the same as functions.
//!
//! `scan` reads JSON as text, `check` holds the table of fields, `log` and `feedback` are the routes, `store` what
//! they change, `book` the lock around it, `line` a connection that can end badly, `server` the accept loops.

mod api;
mod book;
mod bson;
mod check;
mod control;
#[cfg(any(test, fuzzing))]
mod direct;
mod feedback;
mod line;
mod log;
mod reply;
mod scan;
mod server;
mod store;
mod switches;

pub use store::{EvalRow, HumanEval, LogRow, ProjectState, State, TaskRow};
pub use switches::Switches;

#[cfg(test)]
pub(crate) use direct::Said;

use book::Book;
use serde_json::Value;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Where a sandbox listens. The default is two free ports on 127.0.0.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The API's address.
    pub listen: SocketAddr,
    /// The control plane's address.
    pub control: SocketAddr,
}

impl Default for Settings {
    fn default() -> Self {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            listen: free,
            control: free,
        }
    }
}

/// A view into a sandbox, for as many owners as like.
#[derive(Debug, Clone)]
pub struct Handle {
    book: Arc<Book>,
}

/// Serves the API and the control plane on bound listeners until `shutdown` is ready; then all connections are
/// dropped.
///
/// # Errors
/// When a listener does not know its own address.
pub async fn serve(
    api: TcpListener,
    control: TcpListener,
    handle: &Handle,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let addr = api.local_addr()?;
    tokio::select! {
        () = shutdown => {}
        () = server::serve_api(api, addr, handle.book.clone()) => {}
        () = server::serve_control(control, handle.book.clone()) => {}
    }
    Ok(())
}

/// Binds both listeners and serves them in the background until [`Sandbox::shutdown`], or until the value is dropped.
///
/// # Errors
/// When an address cannot be bound; the sentence names it.
pub async fn start(settings: Settings) -> io::Result<Sandbox> {
    let api = bind(settings.listen).await?;
    let control = bind(settings.control).await?;
    let (addr, control_addr) = (api.local_addr()?, control.local_addr()?);
    let handle = Handle::default();
    let (stop, stopped) = oneshot::channel::<()>();
    let inner = handle.clone();
    let task = tokio::spawn(async move {
        // Dropping the sender stops as well as sending.
        let shutdown = async { drop(stopped.await) };
        serve(api, control, &inner, shutdown).await
    });
    Ok(Sandbox {
        addr,
        control_addr,
        handle,
        stop,
        task,
    })
}

async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let tell = |error: io::Error| {
        let text =
            format!("cannot listen on {addr}: {error}; choose another address, or port 0 for a free port");
        io::Error::new(error.kind(), text)
    };
    TcpListener::bind(addr).await.map_err(tell)
}

/// A running sandbox.
#[derive(Debug)]
pub struct Sandbox {
    addr: SocketAddr,
    control_addr: SocketAddr,
    handle: Handle,
    stop: oneshot::Sender<()>,
    task: JoinHandle<io::Result<()>>,
}

impl Sandbox {
    /// Where the API listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where the control plane listens.
    pub fn control_addr(&self) -> SocketAddr {
        self.control_addr
    }

    /// The API's base URL, without a path.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Stops, drops all connections and gives the last counts.
    pub async fn shutdown(self) -> State {
        let _ = self.stop.send(());
        // The task ends only by the signal; should it have failed, the counts still tell what happened.
        let _ = self.task.await;
        self.handle.state()
    }
}

impl std::ops::Deref for Sandbox {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Default for Handle {
    fn default() -> Self {
        Self {
            book: Arc::new(Book::new()),
        }
    }
}

impl Handle {
    /// The counts as they are.
    pub fn state(&self) -> State {
        self.book.state()
    }

    /// Waits until the counts are as wished.
    ///
    /// # Errors
    /// The counts, when `limit` is over before.
    pub async fn wait_for(&self, limit: Duration, wish: impl Fn(&State) -> bool) -> Result<State, State> {
        self.book.wait(limit, wish).await
    }

    /// Changes switches, by the names of [`Switches`]; returns once the change is in force.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the change; then nothing is changed.
    pub async fn switch(&self, change: Value) -> Result<Switches, String> {
        self.book.switch(&change).await
    }

    /// Forgets everything: tasks, counts, surprises, switches.
    ///
    /// # Errors
    /// When the API's listener was closed by `refuse` and its port is taken now.
    pub async fn reset(&self) -> Result<(), String> {
        self.book.reset().await
    }

    /// The stored tasks in order of storage, of one project or all.
    pub fn tasks(&self, project: Option<&str>) -> Vec<TaskRow> {
        self.book.with(|page| page.store.task_rows(project))
    }

    /// One stored task.
    pub fn task(&self, id: &str) -> Option<TaskRow> {
        self.book.with(|page| page.store.task_row(id))
    }

    /// Feedback in order of arrival, of one task or all.
    pub fn evals(&self, task: Option<&str>) -> Vec<EvalRow> {
        self.book.with(|page| page.store.eval_rows(task))
    }

    /// The raw logs in order of storage, duplicates as well, of one project or all.
    pub fn logs(&self, project: Option<&str>) -> Vec<LogRow> {
        self.book.with(|page| page.store.log_rows(project))
    }
}
