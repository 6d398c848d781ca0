//! The sandbox, in this process, as the API that the daemon sends to.

use super::PATIENCE;
use phosphod::sandbox::{self, EvalRow, Sandbox, State, TaskRow};
use serde_json::Value;

/// A running sandbox. [`Upstream::finish`] fails the test if anything came that the contract does not know.
pub(crate) struct Upstream(Sandbox);

impl Upstream {
    /// Starts one on a free port. Feedback for an unknown task is answered at once, not after 31 s.
    pub(crate) async fn start() -> Self {
        let this = Self(
            sandbox::start(sandbox::Settings::default())
                .await
                .expect("a free port"),
        );
        this.switch(serde_json::json!({"eval_wait_ms": 0})).await;
        this
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn url(&self) -> String {
        self.0.base_url()
    }

    /// Turns switches; see the sandbox for their names.
    pub(crate) async fn switch(&self, change: Value) {
        self.0.switch(change).await.expect("a switch that it knows");
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
        let row = self
            .task(task_id)
            .unwrap_or_else(|| panic!("no task {task_id} at the sandbox"));
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
        if let Err(state) = self.0.wait_for(PATIENCE, |state| count(state) >= goal).await {
            panic!("the sandbox has {} of {goal} {what}: {state:?}", count(&state));
        }
    }

    /// Ends it; nothing may have surprised it.
    pub(crate) async fn finish(self) -> State {
        let state = self.0.shutdown().await;
        assert!(
            state.surprises.is_empty(),
            "the sandbox met what the contract does not know: {:?}",
            state.surprises
        );
        state
    }
}
