//! The service in the container, the sandbox that it sends to, and the account of what was acknowledged.

use crate::executable;
use crate::machine::Machine;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

pub(crate) const TCP: &str = "127.0.0.1:4710";
pub(crate) const UNIX: &str = "/run/phosphod/phosphod.sock";

/// Short waits, and the sandbox as the API.
const CONFIG: &str = r#"
[upstream]
base_url = "http://127.0.0.1:4711"
[batch]
max_age = "20 ms"
[retry]
min = "20 ms"
max = "500 ms"
[shutdown]
grace = "2 s"
[redact]
detect = "email"
"#;

/// One line on the terminal. `print!` in a passing test is never shown.
pub(crate) fn figure(line: &str) {
    let _ = writeln!(std::io::stderr(), "boot: {line}");
}

/// Seconds, for people.
pub(crate) fn seconds(took: Duration) -> String {
    format!("{:.2} s", took.as_secs_f64())
}

/// Puts what is tested where a package would.
pub(crate) fn install(root: &Path) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let put = |from: &Path, to: &str| {
        let to = root.join(to);
        std::fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        std::fs::copy(from, &to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    };
    let programs = root.join("usr/bin");
    std::fs::create_dir_all(&programs).expect("a folder");
    executable::binary(&programs);
    for unit in ["phosphod.service", "phosphod.socket"] {
        put(
            &here.join("systemd").join(unit),
            &format!("etc/systemd/system/{unit}"),
        );
    }
    for script in ["load.py", "fill.py"] {
        put(&here.join("tests/boot").join(script), &format!("srv/{script}"));
    }
}

/// The machine with the sandbox running.
pub(crate) struct World {
    pub(crate) machine: Machine,
    promised: BTreeSet<String>,
}

impl World {
    pub(crate) fn begin(machine: Machine) -> Self {
        machine.write("/etc/phosphod/config.toml", CONFIG, "0644");
        machine.run("systemd-run --quiet --unit=sandbox /usr/bin/phosphod sandbox");
        machine.until("curl -sf http://127.0.0.1:4712/sandbox/state");
        Self {
            machine,
            promised: BTreeSet::new(),
        }
    }

    /// Writes a drop-in of the service, which counts from its next start on.
    pub(crate) fn drop_in(&self, name: &str, service: &str) {
        let path = format!("/run/systemd/system/phosphod.service.d/{name}.conf");
        self.machine
            .write(&path, &format!("[Service]\n{service}\n"), "0644");
        self.machine.run("systemctl daemon-reload");
    }

    pub(crate) fn no_drop_in(&self, name: &str) {
        let path = format!("/run/systemd/system/phosphod.service.d/{name}.conf");
        self.machine.run(&format!("rm {path} && systemctl daemon-reload"));
    }

    pub(crate) fn main_pid(&self) -> String {
        let pid = self.machine.property("phosphod", "MainPID");
        assert_ne!(pid, "0", "it runs");
        pid
    }

    /// Waits until the sentence in `systemctl status` has this part.
    pub(crate) fn says(&self, part: &str) {
        let script = format!("systemctl show --property=StatusText phosphod | grep -qF '{part}'");
        self.machine.until(&script);
    }

    /// Waits until another process than `before` is the daemon, and is ready.
    pub(crate) fn restarted(&self, before: &str) {
        let script = format!(
            "systemctl is-active phosphod && test \"$(systemctl show -p MainPID --value phosphod)\" != {before}"
        );
        self.machine.until(&script);
    }

    pub(crate) fn switch(&self, change: &Value) {
        let url = "http://127.0.0.1:4712/sandbox/switches";
        self.machine
            .run(&format!("curl -sf -X PUT {url} -d '{change}' >/dev/null"));
    }

    pub(crate) fn upstream_is_down(&self, down: bool) {
        self.switch(&json!({"down": down}));
    }

    fn json(&self, url: &str) -> Value {
        let text = self.machine.run(&format!("curl -sf '{url}'"));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in {text}"))
    }

    pub(crate) fn status(&self) -> Value {
        self.json("http://127.0.0.1:4710/status")
    }

    /// A count of the ledger, which has to add up.
    pub(crate) fn ledger(&self, name: &str) -> u64 {
        let ledger = &self.status()["ledger"];
        let count = |name: &str| {
            ledger[name]
                .as_u64()
                .unwrap_or_else(|| panic!("no {name} in {ledger}"))
        };
        let ended = count("delivered") + count("dead") + count("dropped") + count("queued");
        assert_eq!(count("accepted"), ended, "the ledger adds up: {ledger}");
        count(name)
    }

    /// Logs one event under this task id; it has to be acknowledged.
    pub(crate) fn log(&mut self, task: &str) {
        let event = json!({"input": "x", "task_id": task, "project_id": "p"});
        let post = format!("curl -sf http://{TCP}/log --json '{event}'");
        self.machine.run(&post);
        self.promised.insert(task.to_owned());
    }

    /// Starts a load in there.
    pub(crate) fn load(&self, target: &str, name: &str, rest: &str) -> Load {
        let stop = format!("/srv/stop-{name}");
        let script = format!("exec /usr/bin/python3 /srv/load.py {target} {name} {stop} {rest}");
        let child = self.machine.shell(&script).spawn().expect("nsenter runs");
        Load { child, stop }
    }

    /// Ends a load. What was acknowledged is promised from now on.
    pub(crate) fn end(&mut self, load: Load) -> Told {
        self.machine.run(&format!("touch {}", load.stop));
        let output = load.child.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        let told: Value =
            serde_json::from_str(text.trim()).unwrap_or_else(|e| panic!("{e} in {text} {complaints}"));
        let answered = told["answered"].as_array().expect("a list");
        let tasks = answered.iter().filter_map(Value::as_str).map(str::to_owned);
        self.promised.extend(tasks);
        let count = |name: &str| told[name].as_u64().expect("a count");
        let (refused, other) = (count("refused"), count("other"));
        if refused + other > 0 {
            // Said here, because only some scenarios mind.
            eprintln!("{complaints}");
        }
        Told {
            answered: answered.len(),
            refused,
            other,
        }
    }

    /// Waits until at least so many events were accepted.
    pub(crate) fn accepted(&self, least: u64) {
        let script = format!(
            "test \"$(curl -sf http://{TCP}/status | /usr/bin/python3 -c \
             'import json, sys; print(json.load(sys.stdin)[\"ledger\"][\"accepted\"])')\" -ge {least}"
        );
        self.machine.until(&script);
    }

    /// Waits until all is delivered; everything that was ever acknowledged has to be there.
    pub(crate) fn all_is_kept(&self) -> usize {
        self.upstream_is_down(false);
        self.machine
            .until(&format!("curl -sf http://{TCP}/status | grep -q '\"queued\":0'"));
        assert_eq!((self.ledger("dead"), self.ledger("dropped")), (0, 0));
        let tasks = self.json("http://127.0.0.1:4712/sandbox/tasks");
        let tasks = tasks.as_array().expect("a list");
        let stored: BTreeSet<&str> = tasks.iter().filter_map(|task| task["task_id"].as_str()).collect();
        assert_eq!(stored.len(), tasks.len(), "each task once");
        let lost: Vec<_> = self
            .promised
            .iter()
            .filter(|task| !stored.contains(task.as_str()))
            .collect();
        assert!(
            lost.is_empty(),
            "lost {} of {}: {lost:?}",
            lost.len(),
            self.promised.len()
        );
        self.promised.len()
    }
}

/// A load that runs.
pub(crate) struct Load {
    child: Child,
    stop: String,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Told {
    /// Events.
    pub(crate) answered: usize,
    /// Requests without an answer.
    pub(crate) refused: u64,
    /// Requests with another answer than 200.
    pub(crate) other: u64,
}
