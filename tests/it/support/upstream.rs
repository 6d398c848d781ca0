//! The sandbox, in this process, as the API that the daemon sends to.

use super::PATIENCE;
use phosphod::sandbox::{self, EvalRow, Sandbox, State, TaskRow};
use serde_json::Value;

/// A running sandbox. [`Upstream::finish`] fails the test if anything came that the contract does not know.
pub(crate) struct Upstream(Sandbox);

impl Upstream {
    /// Starts one on a free port. Feedback for an unknown task is answered at once, not after 31 s.
    pub(crate) async fn start() -> Self {
        let listen = ([127, 0, 0, 1], 0).into();
        let sandbox = sandbox::start(sandbox::Settings { listen, ..Default::default() }).await.expect("a free port");
        let this = Self(sandbox);
        this.switch(serde_json::json!({"eval_wait_ms": 0}));
        this
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.0.addr())
    }

    /// Turns switches; see the sandbox for their names.
    pub(crate) fn switch(&self, change: Value) {
        self.0.switch(&change).expect("a switch that it knows");
    }

    /// Counts so far.
    pub(crate) fn state(&self) -> State {
        self.0.state()
    }

    /// Tasks of a project in the order of storage.
    pub(crate) fn tasks(&self, project: &str) -> Vec<TaskRow> {
        self.0.tasks(Some(project))
    }

    /// One task.
    pub(crate) fn task(&self, task_id: &str) -> Option<TaskRow> {
        self.0.task(task_id)
    }

    /// Its stored JSON.
    pub(crate) fn event(&self, task_id: &str) -> Value {
        let row = self.task(task_id).unwrap_or_else(|| panic!("no task {task_id} at the sandbox"));
        serde_json::from_str(&row.raw).expect("what is stored is JSON")
    }

    /// Evaluation rows of a task, in order.
    pub(crate) fn evals(&self, task_id: &str) -> Vec<EvalRow> {
        self.0.evals(Some(task_id))
    }

    /// Waits until at least so many tasks are stored.
    pub(crate) async fn stored(&self, tasks: u64) {
        self.reached("stored tasks", tasks, |state| state.stored).await;
    }

    /// Waits until at least so many evaluations are counted.
    pub(crate) async fn evaluated(&self, evals: u64) {
        self.reached("evaluations", evals, |state| state.evals).await;
    }

    /// Waits until a count of the state reaches a value.
    pub(crate) async fn reached(&self, what: &str, goal: u64, count: impl Fn(&State) -> u64) {
        let waiting = self.0.wait_until(|state| count(state) >= goal);
        if tokio::time::timeout(PATIENCE * 3, waiting).await.is_err() {
            panic!("the sandbox has {} of {goal} {what}: {:?}", count(&self.state()), self.state());
        }
    }

    /// Ends it; nothing may have surprised it.
    pub(crate) async fn finish(self) -> State {
        let state = self.0.state();
        assert!(state.surprises.is_empty(), "the sandbox met what the contract does not know: {:?}", state.surprises);
        self.0.stop().await;
        state
    }
}
