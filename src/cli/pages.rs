//! `phosphod pages`, hidden: the manual pages and the completions of the shells, written from the very definitions
//! that the command line and the configuration are read by. Packaging calls it (`packaging/build.sh`).
use super::{Cli, FAILED, tell};
use crate::config::keys::{KEYS, Key};
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const NAME: &str = env!("CARGO_PKG_NAME");
const SOURCE: &str = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));

/// Arguments of `phosphod pages`.
#[derive(Debug, Args)]
pub(super) struct PagesArgs {
    /// Folder to write into, made if there is none: man1/, man5/, bash/, zsh/, fish/
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// One file to write: its path below the folder, and what is in it.
type Page = (String, Vec<u8>);

pub(super) fn run(args: PagesArgs) -> ExitCode {
    match pages().and_then(|pages| write(&args.folder, &pages)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let folder = args.folder.display();
            tell(&format!(
                "phosphod pages: {folder} cannot be written ({error}): name a folder that can"
            ));
            ExitCode::from(FAILED)
        }
    }
}

fn write(folder: &Path, pages: &[Page]) -> io::Result<()> {
    for (name, text) in pages {
        let path = folder.join(name);
        if let Some(above) = path.parent() {
            std::fs::create_dir_all(above)?;
        }
        std::fs::write(path, text)?;
    }
    Ok(())
}

fn pages() -> io::Result<Vec<Page>> {
    let mut pages = Vec::new();
    let mut shown = shown().disable_help_subcommand(true);
    shown.build();
    manual(&shown, &mut pages)?;
    pages.push((format!("man5/{NAME}.toml.5"), settings()?));
    for (shell, file) in [
        (Shell::Bash, format!("bash/{NAME}")),
        (Shell::Zsh, format!("zsh/_{NAME}")),
        (Shell::Fish, format!("fish/{NAME}.fish")),
    ] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut self::shown(), NAME, &mut text);
        pages.push((file, text));
    }
    Ok(pages)
}

/// The command line without what is hidden: completions would offer it otherwise.
fn shown() -> clap::Command {
    let all = Cli::command();
    let shown = all.get_subcommands().filter(|command| !command.is_hide_set());
    clap::Command::new(NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .about(all.get_about().cloned().unwrap_or_default())
        .subcommand_required(true)
        .subcommands(shown.cloned())
}

/// The page of a command, after those of the commands below it.
fn manual(command: &clap::Command, pages: &mut Vec<Page>) -> io::Result<()> {
    for below in command.get_subcommands() {
        manual(below, pages)?;
    }
    let page = Man::new(command.clone()).source(SOURCE).manual(NAME);
    let mut text = Vec::new();
    page.render(&mut text)?;
    if command.get_name() == NAME {
        around().to_writer(&mut text)?;
    }
    let mut also = Roff::new();
    let others = [(NAME, "1"), (concat!(env!("CARGO_PKG_NAME"), ".toml"), "5")];
    see_also(&mut also, &others[usize::from(command.get_name() == NAME)..]);
    also.to_writer(&mut text)?;
    pages.push((format!("man1/{}", page.get_filename()), text));
    Ok(())
}

/// What phosphod(1) says of its surroundings; the definitions of clap do not hold it.
fn around() -> Roff {
    let mut roff = Roff::new();
    section(
        &mut roff,
        "EXIT STATUS",
        &[
            ("0", "Fine."),
            ("1", "It did not work out; standard error says why."),
            (
                "2",
                "Wrong usage; also a data folder that cannot be looked at, or a daemon that cannot be asked.",
            ),
            ("78", "The configuration is wrong; nothing was opened."),
        ],
    );
    section(
        &mut roff,
        "ENVIRONMENT",
        &[
            ("PHOSPHO_API_KEY", "The API key, upstream.api_key."),
            (
                "PHOSPHO_PROJECT_ID",
                "Project of events that name none, upstream.project_id.",
            ),
            (
                "PHOSPHOD__SECTION__KEY",
                "Any other key of the configuration, such as PHOSPHOD__UPSTREAM__BASE_URL.",
            ),
        ],
    );
    section(
        &mut roff,
        "FILES",
        &[
            (
                "/etc/phosphod/config.toml",
                "The configuration, unless --config names another or ./config.toml is there, in a folder of one's own.",
            ),
            (
                "/etc/phosphod/api-key",
                "The API key of the service, readable by root alone.",
            ),
            (
                "/etc/phosphod/phosphod.env",
                "Environment of the service, such as PHOSPHO_PROJECT_ID=...; readable by root alone.",
            ),
            ("/run/phosphod/phosphod.sock", "Unix socket of the service."),
            ("/var/lib/phosphod", "Data folder of the service."),
        ],
    );
    roff
}

fn section(roff: &mut Roff, heading: &str, rows: &[(&str, &str)]) {
    roff.control("SH", [heading]);
    for (name, text) in rows {
        roff.control("TP", []);
        roff.text([bold(*name)]);
        roff.text([roman(*text)]);
    }
}

fn see_also(roff: &mut Roff, pages: &[(&str, &str)]) {
    roff.control("SH", ["SEE ALSO"]);
    let mut line: Vec<Inline> = Vec::new();
    for (name, section) in pages {
        let comma = if line.is_empty() { "" } else { ", " };
        line.extend([roman(comma), bold(*name), roman(format!("({section})"))]);
    }
    roff.text(line);
}

/// phosphod.toml(5): every key there is.
fn settings() -> io::Result<Vec<u8>> {
    let mut roff = Roff::new();
    roff.control("TH", ["phosphod.toml", "5", "", SOURCE, NAME]);
    roff.control("SH", ["NAME"]);
    roff.text([roman(
        "phosphod.toml - configuration of phosphod, /etc/phosphod/config.toml",
    )]);
    roff.control("SH", ["DESCRIPTION"]);
    for paragraph in [
        "A TOML file, found as --config FILE, else ./config.toml in a folder of one's own, else /etc/phosphod/config.toml. Later ones win: defaults, this \
         file, PHOSPHO_API_KEY and PHOSPHO_PROJECT_ID, variables like PHOSPHOD__UPSTREAM__BASE_URL, --set upstream.base_url=...",
        "A relative path is against the working directory. \"\" stands for \"not set\" where the default is none. An unknown key is a \
         mistake. phosphod config check tells every mistake at once; phosphod config show prints what holds, and where it came from.",
    ] {
        roff.control("PP", []);
        roff.text([roman(paragraph)]);
    }
    roff.control("SH", ["KEYS"]);
    let mut last = "";
    for key in KEYS {
        let (section, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        if section != last {
            roff.control("SS", [format!("[{section}]").as_str()]);
            last = section;
        }
        setting(&mut roff, name, key);
    }
    see_also(&mut roff, &[(NAME, "1")]);
    let mut text = Vec::new();
    roff.to_writer(&mut text)?;
    Ok(text)
}

fn setting(roff: &mut Roff, name: &str, key: &Key) {
    roff.control("TP", []);
    roff.text([bold(name), roman(" = "), italic(key.kind.unit())]);
    let range = key.kind.bounds();
    let range = range.map_or_else(String::new, |(least, most)| format!("From {least} to {most}. "));
    roff.text([roman(format!(
        "{} {range}Default: {}.",
        key.doc,
        key.default.documented()
    ))]);
}
