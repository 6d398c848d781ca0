//! What holds the house in order: imports point down the layers, and every configuration key is documented.
#![allow(clippy::expect_used)] // A test's helpers fail by panicking, as it does itself.

use phosphod::config::keys::{Default, KEYS, PROJECT_KEY};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

// ---- layers ----

/// The layer from which on modules of one layer must not know each other (design.md section 2).
const STRANGERS_FROM: u32 = 3;

type Layers = BTreeMap<String, u32>;

/// Reads the table in the documentation of `src/lib.rs`: ``| 1 | [`event`], [`batch`] | ... |``.
fn layers(lib: &str) -> Layers {
    let mut layers = Layers::new();
    for row in lib.lines().filter_map(|line| line.strip_prefix("//! |")) {
        let mut cells = row.split('|');
        let Some(Ok(layer)) = cells.next().map(|cell| cell.trim().parse()) else {
            continue;
        };
        for name in cells.next().unwrap_or_default().split(',') {
            layers.insert(name.trim().trim_matches(['[', ']', '`']).to_owned(), layer);
        }
    }
    layers
}

/// The code of a file without its line comments.
fn code(text: &str) -> String {
    let uncommented = |line: &str| match line.trim_start().starts_with("//") {
        true => String::new(),
        false => line.split(" // ").next().unwrap_or_default().to_owned(),
    };
    text.lines().map(uncommented).collect::<Vec<_>>().join("\n")
}

fn word(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// Names that stand first after `crate::`, or after so many `super::` that the crate's root is reached. `depth` is how
/// many modules deep the file is.
fn named(code: &str, depth: usize) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for prefix in ["crate::".to_owned(), "super::".repeat(depth)] {
        for (at, _) in code.match_indices(&prefix) {
            let inside_a_word = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
            let rest = &code[at + prefix.len()..];
            if inside_a_word {
                continue;
            }
            match rest.strip_prefix('{') {
                Some(group) => names.extend(heads(group)),
                None => {
                    names.insert(word(rest));
                }
            }
        }
    }
    names
}

/// First words of the parts of a `{...}` group.
fn heads(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let mut depth = 0_u32;
    let mut part = String::new();
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => heads.push(word(std::mem::take(&mut part).trim())),
            _ => {
                depth = match c {
                    '{' => depth + 1,
                    '}' => depth - 1,
                    _ => depth,
                };
                part.push(c);
            }
        }
    }
    heads.push(word(part.trim()));
    heads.retain(|head| !head.is_empty());
    heads
}

/// One source file: its path below `src/` and its text.
type File = (String, String);

fn module_of(path: &str) -> String {
    let first = path.split('/').next().unwrap_or_default();
    first.strip_suffix(".rs").unwrap_or(first).to_owned()
}

fn depth_of(path: &str) -> usize {
    path.split('/').filter(|part| *part != "mod.rs").count()
}

/// Every breach of the layers, one sentence each.
fn breaches(layers: &Layers, files: &[File]) -> Vec<String> {
    let mut breaches = Vec::new();
    let mut beside: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in files
        .iter()
        .filter(|(path, _)| path != "lib.rs" && path != "main.rs")
    {
        let module = module_of(path);
        let Some(own) = layers.get(&module) else {
            breaches.push(format!("src/{path}: {module} is not in the table of src/lib.rs"));
            continue;
        };
        for name in named(&code(text), depth_of(path))
            .into_iter()
            .filter(|name| *name != module)
        {
            match layers.get(&name) {
                Some(layer) if layer > own => {
                    breaches.push(format!(
                        "src/{path}: {module} (layer {own}) uses {name} (layer {layer})"
                    ));
                }
                Some(layer) if layer == own && *own >= STRANGERS_FROM => {
                    breaches.push(format!("src/{path}: {module} uses {name} of its own layer {own}"));
                }
                Some(layer) if layer == own => {
                    beside.entry(module.clone()).or_default().insert(name);
                }
                _ => {}
            }
        }
    }
    for module in beside.keys() {
        let mut seen = BTreeSet::new();
        let mut next: Vec<&String> = beside[module].iter().collect();
        while let Some(name) = next.pop() {
            if seen.insert(name) {
                next.extend(beside.get(name).into_iter().flatten());
            }
        }
        if seen.contains(module) {
            breaches.push(format!("{module} uses itself by way of its own layer"));
        }
    }
    breaches
}

fn sources(folder: &Path, below: &Path, files: &mut Vec<File>) {
    for entry in fs::read_dir(folder).expect("src can be listed") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, below, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path
                .strip_prefix(below)
                .expect("below src")
                .to_string_lossy()
                .replace('\\', "/");
            files.push((name, fs::read_to_string(&path).expect("UTF-8")));
        }
    }
}

#[test]
fn imports_point_down_the_layers() {
    let src = root().join("src");
    let lib = fs::read_to_string(src.join("lib.rs")).expect("src/lib.rs");
    let layers = layers(&lib);
    let mut files = Vec::new();
    sources(&src, &src, &mut files);

    let declared = |line: &str| {
        let line = line.trim();
        line.strip_prefix("pub mod ")
            .or(line.strip_prefix("mod "))
            .map(|name| name.trim_end_matches(';').to_owned())
    };
    let declared: BTreeSet<String> = lib.lines().filter_map(declared).collect();
    assert_eq!(
        declared,
        layers.keys().cloned().collect(),
        "modules of src/lib.rs and its table"
    );
    assert_eq!(breaches(&layers, &files), Vec::<String>::new());
}

#[test]
fn a_breach_of_the_layers_is_seen() {
    let layers = layers(
        "//! | 0 | [`ids`], [`wire`] | x |\n//! | 3 | [`intake`], [`courier`] | x |\n//! | 5 | [`daemon`] | x |",
    );
    assert_eq!(layers.len(), 5);
    let seen = |path: &str, text: &str| breaches(&layers, &[(path.to_owned(), text.to_owned())]).len();
    assert_eq!(
        seen("intake/mod.rs", "use crate::ids::Lane;\nuse crate::intake::x;"),
        0
    );
    assert_eq!(
        seen(
            "intake/mod.rs",
            "/// See [`crate::daemon`].\nlet x = 1; // crate::daemon"
        ),
        0
    );
    assert_eq!(seen("intake/mod.rs", "use crate::daemon::run;"), 1);
    assert_eq!(seen("intake/a.rs", "let x = crate::courier::run();"), 1);
    assert_eq!(
        seen("ids.rs", "use crate::{\n    wire::{a, b},\n    daemon::{c},\n};"),
        1
    );
    assert_eq!(seen("intake/a.rs", "use super::super::daemon;"), 1);
    assert_eq!(seen("stray.rs", ""), 1);
    let two = |a: &str, b: &str| {
        breaches(
            &layers,
            &[("ids.rs".into(), a.into()), ("wire.rs".into(), b.into())],
        )
        .len()
    };
    assert_eq!(two("use crate::wire;", ""), 0);
    assert_eq!(two("use crate::wire;", "use crate::ids;"), 2);
}

// ---- executables ----

/// Where tests make executables: by another process, see there.
const EXECUTABLES: &str = "support/executable.rs";
/// Test files that copy files which nobody executes where they lie.
const DATA_COPIES: [&str; 3] = ["boot/world.rs", "faults/wreck.rs", "package/root.rs"];
/// This file, which has the words in it that it looks for.
const THIS: &str = "tidy.rs";

/// Test files that make an executable by themselves: one that this process has open for writing while another test starts a child
/// cannot be executed ("Text file busy").
fn own_executables(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files
        .iter()
        .filter(|(path, _)| path != EXECUTABLES && path != THIS)
    {
        let code = code(text);
        if code.contains("fs::copy(") && !DATA_COPIES.contains(&path.as_str()) {
            found.push(format!(
                "tests/{path} copies a file: by support::executable if it is executed"
            ));
        }
        let copies_binary = |call: &str| {
            call.split(';')
                .next()
                .is_some_and(|call| call.contains("CARGO_BIN_EXE"))
        };
        if code.split("fs::copy(").skip(1).any(copies_binary) {
            found.push(format!(
                "tests/{path} copies the binary: use support::executable::binary"
            ));
        }
        let quoted = |line: &str| line.find("#!/").is_some_and(|at| line[..at].contains('"'));
        let modes = ["OpenOptionsExt", "O_CREAT"];
        if code.lines().any(quoted) || modes.iter().any(|word| code.contains(word)) {
            found.push(format!(
                "tests/{path} writes a script: use support::executable::script"
            ));
        }
    }
    found
}

#[test]
fn no_test_makes_an_executable_by_itself() {
    let tests = root().join("tests");
    let mut files = Vec::new();
    sources(&tests, &tests, &mut files);
    assert!(files.iter().any(|(path, _)| path == EXECUTABLES));
    for path in DATA_COPIES {
        let text = files
            .iter()
            .find(|(found, _)| found == path)
            .map(|(_, text)| text);
        assert!(
            text.is_some_and(|text| text.contains("fs::copy(")),
            "{path} copies nothing"
        );
    }
    assert_eq!(own_executables(&files), Vec::<String>::new());
}

#[test]
fn a_test_that_makes_an_executable_is_seen() {
    let seen = |path: &str, text: &str| own_executables(&[(path.to_owned(), text.to_owned())]).len();
    assert_eq!(
        seen(
            "it/a.rs",
            "fs::write(&path, \"text\");\n// fs::copy(a, b)\n#![allow(x)]"
        ),
        0
    );
    assert_eq!(seen("it/a.rs", "std::fs::copy(from, to)"), 1);
    assert_eq!(
        seen(
            "boot/world.rs",
            "std::fs::copy(from, to); env!(\"CARGO_BIN_EXE_x\")"
        ),
        0
    );
    assert_eq!(
        seen("boot/world.rs", "std::fs::copy(env!(\"CARGO_BIN_EXE_x\"), to)"),
        1
    );
    assert_eq!(
        seen("it/a.rs", "fs::write(&path, format!(\"#!/bin/sh\\n{script}\"))"),
        1
    );
    assert_eq!(seen("it/a.rs", "let script = r#\"#!/bin/sh\necho\"#;"), 1);
}

// ---- configuration keys ----

/// A key as `config.toml` has it.
#[derive(Debug, PartialEq)]
struct Documented {
    path: String,
    value: String,
    comment: String,
}

fn documented(text: &str) -> Vec<Documented> {
    let mut keys = Vec::new();
    let mut section = String::new();
    let mut comment = String::new();
    for line in text.lines() {
        let bare = line.strip_prefix('#').unwrap_or(line);
        if line.starts_with("# ") || line == "#" {
            comment = format!("{comment}{} ", bare.trim());
        } else if let Some(name) = bare.strip_prefix('[') {
            section = name
                .trim_end_matches(']')
                .replace("your-project-id", "<id>")
                .replace("your-rule", "<name>");
            comment.clear();
        } else if let Some((name, value)) = bare.split_once(" = ") {
            let path = format!("{section}.{name}");
            keys.push(Documented {
                path,
                value: value.to_owned(),
                comment: std::mem::take(&mut comment),
            });
        } else {
            comment.clear();
        }
    }
    keys
}

/// Everything in which `config.toml` and the code disagree.
fn disagreements(text: &str) -> Vec<String> {
    let documented = documented(text);
    let mut wrong = Vec::new();
    for key in KEYS {
        let of_key: Vec<_> = documented.iter().filter(|found| found.path == key.path).collect();
        let [found] = of_key.as_slice() else {
            wrong.push(format!("{} stands there {} times", key.path, of_key.len()));
            continue;
        };
        let tail = format!(
            "Unit: {}. Default: {} ",
            key.kind.unit(),
            key.default.documented()
        );
        match found.comment.strip_suffix(&tail) {
            Some(what) if what.trim().len() >= 10 => {}
            Some(_) => wrong.push(format!("{}: it does not say what it does", key.path)),
            None => wrong.push(format!("{}: the comment should end in {tail:?}", key.path)),
        }
        let fixed = matches!(key.default, Default::Text(_) | Default::Bare(_));
        if fixed && found.value != key.default.documented() {
            wrong.push(format!("{}: {} is not the default", key.path, found.value));
        }
    }
    let known: BTreeSet<_> = KEYS.iter().map(|key| key.path).collect();
    let unknown = documented
        .iter()
        .filter(|found| !known.contains(found.path.as_str()));
    wrong.extend(unknown.map(|found| format!("{} is not known", found.path)));
    wrong
}

fn shipped() -> String {
    fs::read_to_string(root().join("config.toml")).expect("config.toml")
}

#[test]
fn config_toml_documents_every_key_with_unit_and_default() {
    assert_eq!(disagreements(&shipped()), Vec::<String>::new());
    assert!(
        KEYS.iter().any(|key| key.path == PROJECT_KEY),
        "the keys of single projects are documented too"
    );
}

#[test]
fn a_disagreement_of_config_toml_is_seen() {
    let text = shipped();
    for (from, to) in [
        ("#max_events = 500", "#max_events = 501"),
        ("#max_events = 500", ""),
        ("#max_events = 500", "#max_events = 500\n#max_happiness = 1"),
        ("Unit: events.", "Unit: bytes."),
        (
            "# Unit: path. Default: $STATE_DIRECTORY",
            "# Unit: path. Default: $HOME",
        ),
        ("# Permissions of the Unix socket.\n", ""),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        assert_eq!(
            disagreements(&changed).len(),
            1,
            "{from} to {to:?}: {:?}",
            disagreements(&changed)
        );
    }
}

// ---- metrics ----

/// A metric, as code and document must agree on it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Measure {
    name: String,
    kind: String,
    /// `seconds` or `bytes`; `None` where things are counted.
    unit: Option<String>,
    labels: Vec<String>,
}

/// The names of a struct's public fields, with their types.
fn fields(source: &str, name: &str) -> Vec<(String, String)> {
    let (_, body) = source
        .split_once(&format!("pub struct {name} {{"))
        .expect("the struct");
    let (body, _) = body.split_once("\n}").expect("its end");
    let field = |line: &str| {
        let (name, kind) = line.trim().strip_prefix("pub ")?.split_once(": ")?;
        Some((name.to_owned(), kind.trim_end_matches(',').to_owned()))
    };
    body.lines().filter_map(field).collect()
}

/// What `src/metrics.rs` registers.
fn registered(source: &str) -> Vec<Measure> {
    let kinds: BTreeMap<_, _> = fields(source, "Metrics").into_iter().collect();
    let calls = source.split("r.register").skip(1);
    let mut measures: Vec<_> = calls
        .map(|call| {
            let call = call.split(';').next().unwrap_or_default();
            let mut name = format!("phosphod_{}", call.split('"').nth(1).expect("a name"));
            let (_, field) = call.split_once("this.").expect("a field");
            let kind = &kinds[&word(field)];
            let unit = call
                .split_once("Unit::")
                .map(|(_, unit)| word(unit).to_lowercase());
            if let Some(unit) = &unit {
                name = format!("{name}_{unit}");
            }
            let labels = kind
                .strip_prefix("Family<")
                .map_or(Vec::new(), |labels| fields(source, &word(labels)));
            let last = kind.trim_end_matches('>').rsplit(' ').next().unwrap_or_default();
            if last == "Counter" {
                name.push_str("_total");
            }
            Measure {
                name,
                kind: last.to_lowercase(),
                unit,
                labels: labels.into_iter().map(|(label, _)| label).collect(),
            }
        })
        .collect();
    measures.sort();
    measures
}

/// What the table of `docs/metrics.md` says.
fn described(document: &str) -> Vec<Measure> {
    let row = |line: &str| {
        let cells: Vec<_> = line
            .strip_prefix("| `phosphod_")?
            .split('|')
            .map(str::trim)
            .collect();
        let [name, kind, unit, labels, meaning, ""] = cells.as_slice() else {
            return None;
        };
        let labels = labels.split(", ").map(|label| label.trim_matches('`').to_owned());
        (meaning.len() >= 20 && !unit.is_empty()).then(|| Measure {
            name: format!("phosphod_{}", name.trim_end_matches('`')),
            kind: (*kind).to_owned(),
            unit: ["seconds", "bytes"].contains(unit).then(|| (*unit).to_owned()),
            labels: labels.filter(|label| !label.is_empty()).collect(),
        })
    };
    let mut measures: Vec<_> = document.lines().filter_map(row).collect();
    measures.sort();
    measures
}

/// Metrics whose own doc comment in `src/metrics.rs` does not name them with their labels.
fn misnamed(source: &str) -> Vec<String> {
    let written = |measure: &Measure| match measure.labels.as_slice() {
        [] => format!("/// `{}`: ", measure.name),
        labels => format!("/// `{}{{{}}}`: ", measure.name, labels.join(",")),
    };
    let names = registered(source).iter().map(written).collect::<Vec<_>>();
    names.into_iter().filter(|name| !source.contains(name)).collect()
}

fn metrics_source() -> String {
    fs::read_to_string(root().join("src/metrics.rs")).expect("src/metrics.rs")
}

fn metrics_document() -> String {
    fs::read_to_string(root().join("docs/metrics.md")).expect("docs/metrics.md")
}

#[test]
fn every_metric_is_described_with_type_unit_and_labels() {
    let source = metrics_source();
    let registered = registered(&source);
    assert_eq!(
        registered.len(),
        fields(&source, "Metrics").len(),
        "every field is registered"
    );
    assert_eq!(described(&metrics_document()), registered);
    assert_eq!(misnamed(&source), Vec::<String>::new());
}

#[test]
fn a_metric_that_is_not_described_is_seen() {
    let (source, document) = (metrics_source(), metrics_document());
    for (from, to) in [
        (
            "| `phosphod_spool_live_bytes` |",
            "| `phosphod_spool_dead_bytes` |",
        ),
        ("| counter | lines |", "| gauge | lines |"),
        ("| histogram | seconds |", "| histogram | minutes |"),
        ("| `kind`, `verdict` |", "| `kind` |"),
    ] {
        let changed = document.replacen(from, to, 1);
        assert_ne!(changed, document, "{from}");
        assert_ne!(described(&changed), registered(&source), "{from} to {to}");
    }
    let unnamed = source.replacen("/// `phosphod_lanes{state}`: ", "/// ", 1);
    assert_eq!(misnamed(&unnamed).len(), 1);
}

// ---- what is printed ----

/// Files of `src/cli` that write to a standard stream by themselves: the one way, the log's thread, exports (which go by the
/// same function), the sandbox's lines (which go by the log's thread), and the demo and progress bars, which draw.
const WRITERS: [&str; 6] = [
    "terminal.rs",
    "logging.rs",
    "journal.rs",
    "output.rs",
    "sandbox.rs",
    "demo",
];

/// Where a question is asked, and its answer awaited, on one line.
const ASKS: &str = "dead/act.rs";

#[test]
fn nothing_writes_to_a_terminal_but_by_one_way() {
    let cli = root().join("src/cli");
    let mut folders = vec![cli.clone()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("it can be listed") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(&cli).expect("below").display().to_string();
            if WRITERS.iter().any(|writer| name.starts_with(writer)) {
                continue;
            }
            let text = code(&fs::read_to_string(&path).expect("a text"));
            let uses = ["stdout()", "println!", "print!", "io::stderr()"];
            let uses = uses.into_iter().filter(|word| {
                let used = text.matches(word).count() - text.matches(&format!("{word}.is_terminal")).count();
                used > usize::from(name == ASKS && *word == "io::stderr()")
            });
            let found: Vec<_> = uses.collect();
            assert!(
                found.is_empty(),
                "src/cli/{name} writes by itself: {found:?}; use cli::terminal"
            );
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen} files");
}
