//! A document and its fenced blocks.

use std::path::Path;

/// A fenced block.
#[derive(Debug)]
struct Block {
    heading: String,
    language: String,
    text: String,
}

/// The blocks of a document that no test has taken yet.
pub(crate) struct Document {
    name: &'static str,
    text: String,
    blocks: Vec<Block>,
}

impl Document {
    pub(crate) fn read(name: &'static str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        let blocks = blocks(&text);
        assert!(!blocks.is_empty(), "{name} has no fenced block");
        Self { name, text, blocks }
    }

    /// Takes the next block of that language below a heading, with these changes. What is to be changed has to be there.
    pub(crate) fn take(&mut self, heading: &str, language: &str, changes: &[(&str, &str)]) -> String {
        let this = |block: &Block| block.heading == heading && block.language == language;
        let at = self.blocks.iter().position(this);
        let at = at.unwrap_or_else(|| {
            panic!(
                "{} has no {language:?} block left below {heading:?}: it has {:#?}",
                self.name, self.blocks
            )
        });
        changed(self.blocks.remove(at).text, changes)
    }

    /// A command in the running text, with these changes.
    pub(crate) fn inline(&self, command: &str, changes: &[(&str, &str)]) -> String {
        assert!(
            self.text.contains(&format!("`{command}`")),
            "{} says {command}",
            self.name
        );
        changed(command.to_owned(), changes)
    }

    /// What stands below a heading, up to the next.
    pub(crate) fn below(&self, heading: &str) -> &str {
        let (_, rest) = self
            .text
            .split_once(&format!("# {heading}\n"))
            .expect("the heading");
        rest.split("\n#").next().unwrap_or(rest)
    }

    /// Every block was taken.
    pub(crate) fn finish(self) {
        assert!(
            self.blocks.is_empty(),
            "no test runs these blocks of {}: {:#?}",
            self.name,
            self.blocks
        );
    }
}

fn changed(mut text: String, changes: &[(&str, &str)]) -> String {
    for (from, to) in changes {
        assert!(
            text.contains(from),
            "{from:?} is to be changed, but is not in:\n{text}"
        );
        text = text.replace(from, to);
    }
    text
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut heading = String::new();
    let mut open: Option<Block> = None;
    for line in text.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            match open.take() {
                Some(block) => blocks.push(block),
                None => {
                    open = Some(Block {
                        heading: heading.clone(),
                        language: language.trim().to_owned(),
                        text: String::new(),
                    });
                }
            }
        } else if let Some(block) = &mut open {
            block.text.push_str(line);
            block.text.push('\n');
        } else if line.starts_with('#') {
            heading = line.trim_start_matches('#').trim().to_owned();
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    blocks
}

#[test]
fn blocks_are_found_with_heading_and_language_and_one_that_is_left_is_seen() {
    let text = "# A\n```sh\n# no heading\nls\n```\n## B\ntext\n```\nx\n```\n";
    let found: Vec<_> = blocks(text)
        .into_iter()
        .map(|block| (block.heading, block.language, block.text))
        .collect();
    let expected = [("A", "sh", "# no heading\nls\n"), ("B", "", "x\n")];
    assert_eq!(
        found,
        expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()))
    );

    let mut document = Document {
        name: "a.md",
        text: text.to_owned(),
        blocks: blocks(text),
    };
    assert_eq!(
        document.take("A", "sh", &[("ls", "true")]),
        "# no heading\ntrue\n"
    );
    assert_eq!(document.below("B"), "text\n```\nx\n```\n");
    let missed = std::panic::catch_unwind(|| document.finish());
    assert!(missed.is_err(), "the second block has no test");
    let stale = std::panic::catch_unwind(|| changed("text".to_owned(), &[("absent", "x")]));
    assert!(stale.is_err(), "a change that changes nothing is stale");
}
