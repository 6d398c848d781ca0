//! How it starts, what it is told and what it tells: Type=notify, its user, its key, its sockets, reload and the journal.

use crate::skip::skip;
use crate::world::{TCP, UNIX, World, figure, seconds};

pub(crate) const KEY: &str = "sk-boot-canary-77";

pub(crate) fn notify_and_user(world: &mut World) {
    let machine = &world.machine;
    machine.run("systemctl start phosphod.socket");
    let took = machine.timed("systemctl start phosphod");
    assert_eq!(machine.property("phosphod", "ActiveState"), "active");
    assert_eq!(
        machine.property("phosphod", "StatusText"),
        "0 queued, 0 dead letters"
    );
    figure(&format!(
        "Type=notify: ready {} after systemctl start",
        seconds(took)
    ));

    let pid = world.main_pid();
    let machine = &world.machine;
    let user = machine.run(&format!("ps -o user= -p {pid}"));
    assert_eq!(user, "phosphod", "a user that exists while it runs");
    assert_eq!(
        machine.run("stat -c '%U %a' /var/lib/private/phosphod"),
        "phosphod 700"
    );
    let status = machine.run(&format!("cat /proc/{pid}/status"));
    for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line} in {status}");
    }
    figure("DynamicUser: runs as phosphod, no capability, data folder 0700");
}

pub(crate) fn sockets(world: &mut World) {
    world.machine.run("systemctl stop phosphod");
    assert_eq!(world.machine.property("phosphod", "MainPID"), "0");
    for (name, target) in [("tcp", TCP), ("unix", UNIX)] {
        // The first connection starts it.
        let load = world.load(target, &format!("first-{name}"), "");
        world
            .machine
            .until("systemctl is-active phosphod && curl -sf http://127.0.0.1:4710/status | grep -qv '\"accepted\":0'");
        let told = world.end(load);
        assert!(told.answered > 0 && told.refused + told.other == 0, "{told:?}");
        world.machine.run("systemctl stop phosphod");
    }
    let mode = world.machine.run(&format!("stat -c '%a %U' {UNIX}"));
    assert_eq!(
        mode, "660 root",
        "systemd's own, and there while the service is not"
    );
    world.machine.run("systemctl start phosphod");
    figure("socket activation: started by a first connection over TCP and over the Unix socket");
}

pub(crate) fn credential(world: &mut World) {
    let lane = |world: &World| world.status()["lanes"][0]["state"].clone();
    world.log("keyless");
    world
        .machine
        .until("curl -sf http://127.0.0.1:4710/status | grep -q queueing_only");
    world.says("no API key for project p");

    world
        .machine
        .write("/etc/phosphod/api-key", &format!("{KEY}\n"), "0600");
    world.machine.run("systemctl restart phosphod");
    let kept = world.all_is_kept();
    let leak = format!(
        "tr '\\0' '\\n' </proc/{}/environ | grep -c {KEY}; journalctl -o cat | grep -c {KEY}",
        world.main_pid()
    );
    let leaks = world.machine.try_run(&leak);
    assert_eq!(
        String::from_utf8_lossy(&leaks.stdout).trim(),
        "0\n0",
        "in no variable, in no log"
    );
    figure(&format!(
        "credential: without a key it queues and says so; with /etc/phosphod/api-key {kept} delivered"
    ));

    let encrypt = format!(
        "printf {KEY} | systemd-creds encrypt --name=phospho-api-key - /etc/phosphod/api-key.cred && rm /etc/phosphod/api-key"
    );
    if !world.machine.try_run(&encrypt).status.success() {
        return skip(
            "the encrypted credential",
            "systemd-creds cannot encrypt in this container",
        );
    }
    world.drop_in(
        "key",
        "LoadCredentialEncrypted=phospho-api-key:/etc/phosphod/api-key.cred",
    );
    world.machine.run("systemctl restart phosphod");
    world.log("encrypted");
    world.all_is_kept();
    assert_eq!(lane(world), "flowing");
    figure("credential: encrypted by systemd-creds, handed over by a drop-in of one line, delivered with it");
}

pub(crate) fn reload_and_journal(world: &mut World) {
    let machine = &world.machine;
    let before = world.main_pid();
    let config = machine.run("cat /etc/phosphod/config.toml");
    machine.write("/etc/phosphod/config.toml", "[batch]\nmax_evnts = 3\n", "0644");
    let reload = machine.try_run("systemctl reload phosphod");
    assert!(!reload.status.success(), "systemctl tells that it was refused");
    // Past systemd's look at the file: the daemon itself has to refuse it.
    machine.run("systemctl kill --signal=HUP --kill-whom=main phosphod");
    machine.until("journalctl -u phosphod -o cat -p err | grep -q 'configuration not reloaded'");
    let errors = machine.run("journalctl -u phosphod -o cat -p err");
    assert!(
        errors.contains("did you mean batch.max_events?"),
        "the reason is in the journal: {errors}"
    );
    assert!(!errors.contains("accepting"), "and only errors: {errors}");
    let warnings = machine.run("journalctl -u phosphod -o cat -p warning..warning");
    assert!(
        warnings.contains("no API key for project p") && !warnings.contains("accepting"),
        "{warnings}"
    );
    let all = machine.run("journalctl -u phosphod -o cat");
    assert!(
        !all.lines().any(|line| line.starts_with('<')),
        "the priorities are taken off"
    );

    machine.write("/etc/phosphod/config.toml", &config, "0644");
    machine.run("systemctl reload phosphod");
    machine.until("journalctl -u phosphod -o cat | grep -q 'configuration reloaded'");
    machine.until("test \"$(systemctl show -p ActiveState --value phosphod)\" = active");
    assert_eq!(
        machine.property("phosphod", "StatusText"),
        "0 queued, 0 dead letters"
    );
    assert_eq!(world.main_pid(), before, "the same process all along");
    world.log("after-reload");
    world.all_is_kept();
    figure(
        "reload: a bad file is refused with its reason, nothing changes; journal: errors and warnings by priority",
    );
}
