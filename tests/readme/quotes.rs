//! What README quotes in its table of troubles is what the daemon says: each part of a quote is in a text of the source, with
//! whatever the source puts in there in the place of its `{...}`.

use crate::document::Document;
use crate::world::tree;
use std::collections::HashMap;
use std::path::Path;

/// Parts that are shorter say nothing.
const SHORTEST: usize = 8;

/// A character of a text in the source, or something that is filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Char(char),
    Any,
}

/// The texts of Rust source, joined where a line goes on, and outside comments.
fn texts(source: &str) -> Vec<String> {
    let chars: Vec<char> = source.chars().collect();
    let (mut texts, mut at) = (Vec::new(), 0);
    while at < chars.len() {
        let next = chars.get(at + 1).copied();
        match chars[at] {
            '/' if next == Some('/') => {
                while at < chars.len() && chars[at] != '\n' {
                    at += 1;
                }
            }
            // The character '"', plain and escaped.
            '\'' if next == Some('"') => at += 3,
            '\'' if next == Some('\\') => at += 4,
            'r' if matches!(next, Some('"' | '#'))
                && !at.checked_sub(1).is_some_and(|b| is_word(chars[b])) =>
            {
                at = raw(&chars, at + 1, &mut texts);
            }
            '"' => at = plain(&chars, at + 1, &mut texts),
            _ => at += 1,
        }
    }
    texts
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// A raw text whose hashes or quote stand at `at`. Gives where it ends.
fn raw(chars: &[char], mut at: usize, texts: &mut Vec<String>) -> usize {
    let mut hashes = 0;
    while chars.get(at) == Some(&'#') {
        (hashes, at) = (hashes + 1, at + 1);
    }
    if chars.get(at) != Some(&'"') {
        return at;
    }
    let end: String = std::iter::once('"').chain("#".repeat(hashes).chars()).collect();
    let rest: String = chars[at + 1..].iter().collect();
    let text = rest.split(&end).next().unwrap_or_default();
    texts.push(text.to_owned());
    at + 1 + text.chars().count() + end.chars().count()
}

/// A text that begins at `at`. Gives where it ends.
fn plain(chars: &[char], mut at: usize, texts: &mut Vec<String>) -> usize {
    let mut text = String::new();
    while let Some(&c) = chars.get(at) {
        at += 1;
        match (c, chars.get(at)) {
            ('"', _) => break,
            ('\\', Some('\n')) => {
                while chars.get(at).is_some_and(|c| c.is_whitespace()) {
                    at += 1;
                }
            }
            ('\\', Some(&escaped)) => {
                at += 1;
                text.push(if escaped == 'n' { '\n' } else { escaped });
            }
            _ => text.push(c),
        }
    }
    texts.push(text);
    at
}

/// A text as a pattern: what `{...}` fills in is anything, `{{` is a brace.
fn pattern(text: &str) -> Vec<Piece> {
    let chars: Vec<char> = text.chars().collect();
    // A text can be a part of another, so there can be more around it.
    let (mut pieces, mut at) = (vec![Piece::Any], 0);
    while at < chars.len() {
        let doubled = chars.get(at + 1) == Some(&chars[at]);
        match chars[at] {
            '{' | '}' if doubled => {
                pieces.push(Piece::Char(chars[at]));
                at += 2;
            }
            '{' => {
                while at < chars.len() && chars[at] != '}' {
                    at += 1;
                }
                pieces.push(Piece::Any);
                at += 1;
            }
            c => {
                pieces.push(Piece::Char(c));
                at += 1;
            }
        }
    }
    pieces.push(Piece::Any);
    pieces
}

/// Most characters of `part` that stand in the pattern itself, if `part` can be a part of what it makes.
fn in_common(part: &[char], pattern: &[Piece]) -> Option<usize> {
    // best[j]: the same for the part's rest from one character on, matched from the pattern's place j on.
    let mut best = vec![Some(0); pattern.len() + 1];
    for c in part.iter().rev() {
        let mut now = vec![None; pattern.len() + 1];
        for (j, piece) in pattern.iter().enumerate().rev() {
            now[j] = match piece {
                Piece::Char(own) => (own == c)
                    .then(|| best[j + 1].map(|rest: usize| rest + 1))
                    .flatten(),
                // It takes the character and may take more, or it is over.
                Piece::Any => [best[j], best[j + 1], now[j + 1]].into_iter().flatten().max(),
            };
        }
        best = now;
    }
    best.into_iter().flatten().max()
}

/// Texts by each run of eight characters in them, so that few have to be tried.
struct Source {
    patterns: Vec<Vec<Piece>>,
    by_run: HashMap<Vec<char>, Vec<usize>>,
}

impl Source {
    fn of(texts: impl Iterator<Item = String>) -> Self {
        let patterns: Vec<_> = texts.map(|text| pattern(&text)).collect();
        let mut by_run: HashMap<Vec<char>, Vec<usize>> = HashMap::new();
        for (number, pattern) in patterns.iter().enumerate() {
            for run in pattern.windows(SHORTEST) {
                let chars: Option<Vec<char>> = run
                    .iter()
                    .map(|piece| match piece {
                        Piece::Char(c) => Some(*c),
                        Piece::Any => None,
                    })
                    .collect();
                let Some(chars) = chars else { continue };
                let numbers = by_run.entry(chars).or_default();
                if numbers.last() != Some(&number) {
                    numbers.push(number);
                }
            }
        }
        Self { patterns, by_run }
    }

    /// Whether a part of a quote is said somewhere: a third of it word by word, for the rest can be filled in.
    fn says(&self, part: &str) -> bool {
        let part: Vec<char> = part.chars().collect();
        let runs = part.windows(SHORTEST).filter_map(|run| self.by_run.get(run));
        let mut numbers: Vec<usize> = runs.flatten().copied().collect();
        numbers.sort_unstable();
        numbers.dedup();
        let enough = |common: usize| 3 * common >= part.len();
        numbers
            .iter()
            .any(|&number| in_common(&part, &self.patterns[number]).is_some_and(enough))
    }
}

/// The quotes in a cell; one can stand inside another.
fn quotes(cell: &str) -> Vec<String> {
    let (mut quotes, mut depth, mut quote, mut before) = (Vec::new(), 0_u32, String::new(), ' ');
    for c in cell.chars() {
        let opens = c == '"' && [' ', '('].contains(&before);
        if c == '"' && !opens && depth == 1 {
            quotes.push(std::mem::take(&mut quote));
        } else if depth > 0 {
            quote.push(c);
        }
        depth = match (c, opens) {
            ('"', true) => depth + 1,
            ('"', false) => depth.saturating_sub(1),
            _ => depth,
        };
        before = c;
    }
    assert_eq!(depth, 0, "a quote is not closed in {cell}");
    quotes
}

/// Quotes of a table's cells of which a part is said nowhere; parts stand where something was left out.
fn unsaid(table: &str, source: &Source) -> Vec<String> {
    let cells = table
        .lines()
        .filter(|line| line.starts_with('|'))
        .flat_map(|line| line.split(" | "));
    let quotes: Vec<String> = cells.flat_map(quotes).collect();
    assert!(quotes.len() > 20, "{} quotes", quotes.len());
    let wrong = quotes.into_iter().filter(|quote| {
        let parts = quote
            .split("...")
            .map(str::trim)
            .filter(|part| part.len() >= SHORTEST);
        let parts: Vec<&str> = parts.collect();
        parts.is_empty() || !parts.iter().all(|part| source.says(part))
    });
    wrong.collect()
}

fn source() -> Source {
    let mut all = Vec::new();
    read(&tree("src"), &mut all);
    Source::of(all.into_iter())
}

fn read(folder: &Path, all: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("src can be listed") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            read(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.extend(texts(&std::fs::read_to_string(path).expect("UTF-8")));
        }
    }
}

#[test]
fn what_readme_quotes_is_what_the_daemon_says() {
    let readme = Document::read("README.md");
    assert_eq!(unsaid(readme.below("Troubleshooting"), &source()), [""; 0]);
}

#[test]
fn a_quote_that_nobody_says_is_seen() {
    let code = r##"
        // "in a comment: not said"
        let quote = '"';
        format!("no API key for project {}, so its events are only \
                 queued: set {KEY}", x);
        write!(f, r#"task_id is "{id}": a variable"#);
    "##;
    let source = Source::of(texts(code).into_iter());
    for said in [
        "no API key for project my-project, so its events are only queued: set PHOSPHO_API_KEY",
        "its events are only queued",
        "task_id is \"undefined\":",
    ] {
        assert!(source.says(said), "{said}");
    }
    for unsaid in [
        "in a comment: not said",
        "its events are all lost",
        "no key for project my-project",
    ] {
        assert!(!source.says(unsaid), "{unsaid}");
    }
    let cell = r#"403 "the host "a.b" is (on_x = "y")" or "another: ...". More."#;
    assert_eq!(
        quotes(cell),
        [r#"the host "a.b" is (on_x = "y")"#, "another: ..."]
    );
}
