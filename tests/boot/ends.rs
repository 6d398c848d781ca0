//! How it ends and comes back: killed by the watchdog and by the kernel, restarted under load, stopped with a backlog.

use crate::skip::skip;
use crate::starts::KEY;
use crate::world::{TCP, UNIX, World, figure, seconds};
use serde_json::json;
use std::time::Instant;

fn is_large() -> bool {
    std::env::var_os("PHOSPHOD_FAULTS").is_some_and(|size| size == "large")
}

pub(crate) fn watchdog(world: &mut World) {
    world.drop_in("watchdog", "WatchdogSec=2");
    world.machine.run("systemctl restart phosphod");
    world.upstream_is_down(true);
    for (what, hang) in [
        ("the process is stopped (SIGSTOP)", "kill -STOP PID"),
        (
            "the queue's thread hangs in fdatasync",
            "echo $$ >/run/hang.pid; exec strace -f -p PID -e trace=fdatasync -e inject=fdatasync:delay_enter=600s -o /dev/null",
        ),
    ] {
        let before = world.main_pid();
        let name = format!("watchdog-{before}");
        let load = world.load(TCP, &name, "3");
        let already = world.ledger("accepted");
        world.accepted(already + 300);
        let since = Instant::now();
        let mut hanging = world
            .machine
            .shell(&hang.replace("PID", &before))
            .spawn()
            .expect("nsenter runs");
        world.machine.until(&format!(
            "journalctl _PID=1 -o cat | grep -q 'Killing process {before} (phosphod) with signal SIGKILL'"
        ));
        world
            .machine
            .run("journalctl -u phosphod -o cat | grep -q 'Watchdog timeout'");
        // The tracer stands in the way of the end.
        let tracer = "test ! -e /run/hang.pid || kill -KILL $(cat /run/hang.pid)";
        let _ = world.machine.try_run(tracer);
        hanging.wait().expect("it ends");
        world.restarted(&before);
        let took = since.elapsed();
        let told = world.end(load);
        figure(&format!(
            "watchdog of 2 s: {what}: killed and ready again after {}, {} acknowledged around it",
            seconds(took),
            told.answered
        ));
    }
    let restarts = world.machine.property("phosphod", "NRestarts");
    assert_eq!(restarts, "2", "by systemd itself, not by the next connection");
    world.no_drop_in("watchdog");
    let kept = world.all_is_kept();
    figure(&format!("watchdog: {kept} acknowledged so far, 0 lost"));
}

pub(crate) fn memory_limit(world: &mut World) {
    const NAME: &str = "the memory limit of the unit";
    world.drop_in("memory", "MemoryMax=48M");
    world.machine.run("systemctl restart phosphod");
    if world
        .machine
        .property("phosphod", "MemoryCurrent")
        .parse::<u64>()
        .is_err()
    {
        world.no_drop_in("memory");
        return skip(NAME, "the container has no control group for memory");
    }
    // Version 1 of control groups tells systemd of a signal only. Nothing else sends it here.
    let killed = |world: &World| {
        let ends = "journalctl -u phosphod -o cat | grep -cE \"Failed with result '(oom-kill|signal)'\"";
        String::from_utf8_lossy(&world.machine.try_run(ends).stdout)
            .trim()
            .to_owned()
    };
    assert_eq!(killed(world), "0");
    world.upstream_is_down(true);
    let steady = world.load(TCP, "steady", "3");
    world.accepted(world.ledger("accepted") + 300);
    let before = world.main_pid();
    let pressing = world.load(TCP, "pressing", "20 200000 16");
    world.restarted(&before);
    let told = world.end(pressing);
    let kills = killed(world);
    assert_ne!(kills, "0", "the kernel did it");
    world.no_drop_in("memory");
    world.machine.run("systemctl restart phosphod");
    let steady = world.end(steady);
    let kept = world.all_is_kept();
    figure(&format!(
        "MemoryMax=48M: killed by the kernel and started again {kills} times, {} acknowledged meanwhile; {kept} so far, 0 lost",
        steady.answered + told.answered
    ));
}

pub(crate) fn restarts(world: &mut World) {
    let rounds = if is_large() { 50 } else { 10 };
    let tcp = world.load(TCP, "restarts-tcp", "1 0 2");
    let unix = world.load(UNIX, "restarts-unix", "1 0 2");
    let mut longest = std::time::Duration::ZERO;
    for _ in 0..rounds {
        let already = world.ledger("accepted");
        world.accepted(already + 50);
        longest = longest.max(world.machine.timed("systemctl restart phosphod"));
    }
    for (name, load) in [("TCP", tcp), ("Unix", unix)] {
        let told = world.end(load);
        assert!(told.refused == 0 && told.other == 0, "{name}: {told:?}");
        figure(&format!(
            "{rounds} restarts under load, {name}: {} answered, 0 refused; the longest took {}",
            told.answered,
            seconds(longest)
        ));
    }
    world.all_is_kept();
}

/// Neither the key nor what redaction took out is in the journal of all that happened so far, or in any file that the service could write.
pub(crate) fn canary(world: &mut World) {
    const PRIVATE: &str = "canary.person@example.com";
    let machine = &world.machine;
    machine.run(&format!(
        "curl -sf http://{TCP}/log --json '{{\"project_id\":\"p\",\"task_id\":\"canary\",\"input\":\"ask {PRIVATE}\"}}'"
    ));
    machine.until(&format!(
        "curl -sf http://127.0.0.1:4711/v2/tasks/canary -H 'Authorization: Bearer {KEY}' | grep -F 'ask [email]'"
    ));
    for secret in [KEY, PRIVATE] {
        let journal = machine.try_run(&format!("journalctl -o cat | grep -cF {secret}"));
        assert_eq!(
            String::from_utf8_lossy(&journal.stdout).trim(),
            "0",
            "{secret} in the journal"
        );
        let files = machine.try_run(&format!(
            "grep -rlF {secret} /var/lib/private/phosphod /run/phosphod /var/tmp /tmp"
        ));
        assert_eq!(
            String::from_utf8_lossy(&files.stdout).trim(),
            "",
            "{secret} in a file"
        );
    }
    figure("canary: the key and a redacted address in the journal and in what the service wrote: 0");
}

pub(crate) fn stop_with_backlog(world: &mut World) {
    let mib = if is_large() { 1024 } else { 128 };
    world.all_is_kept();
    world.upstream_is_down(true);
    let already = world.ledger("delivered");
    let events: u64 = world
        .machine
        .run(&format!("/usr/bin/python3 /srv/fill.py {TCP} {mib}"))
        .parse()
        .expect("a count");
    assert_eq!(world.ledger("queued"), events);
    let stopped = world.machine.timed("systemctl stop phosphod");
    assert_eq!(
        world.machine.property("phosphod", "Result"),
        "success",
        "not killed"
    );
    let disk = world.machine.run("du -sm /var/lib/private/phosphod | cut -f1");
    let started = world.machine.timed("systemctl start phosphod");
    assert_eq!(world.ledger("queued"), events, "nothing is lost");
    figure(&format!(
        "stop with {mib} MiB queued ({events} events, {disk} MiB on disk) and the upstream down: {}; ready again after {}",
        seconds(stopped),
        seconds(started)
    ));

    world.switch(&json!({"down": false, "delay_ms": 600_000}));
    let asked = "curl -sf http://127.0.0.1:4712/sandbox/state | grep -o '\"requests\":[0-9]*'";
    let before = world.machine.run(asked);
    world.machine.until(&format!("test \"$({asked})\" != '{before}'"));
    let stopped = world.machine.timed("systemctl stop phosphod");
    assert_eq!(
        world.machine.property("phosphod", "Result"),
        "success",
        "not killed"
    );
    world.machine.run("systemctl start phosphod");
    let kept = world.ledger("queued") + world.ledger("delivered") - already;
    assert_eq!(kept, events, "nothing is lost");
    figure(&format!(
        "the same with an upstream that never answers and shutdown.grace = 2 s: {}",
        seconds(stopped)
    ));
}
