//! What the configuration names by file: keys, tokens, certificates.
use super::trust::{self, Fault};
use super::values;
use crate::redact::HashKey;
use crate::secret::Secret;
use crate::wire::json::without_mark;
use rustix::fs::OFlags;
use std::io::ErrorKind;
use std::path::Path;

/// Longest file that is taken for a key or a token, in bytes.
const MOST_BYTES: u64 = 64 << 10;

fn unreadable(path: &Path, fault: &std::io::Error) -> String {
    let remedy = match fault.kind() {
        ErrorKind::NotFound => "make it, or correct the path",
        ErrorKind::PermissionDenied => "let the daemon's user read it (chown, or chmod 0640 with its group)",
        _ => "correct the path",
    };
    format!("{} cannot be read ({fault}): {remedy}", path.display())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read;
    // A pipe or a device would block or never end.
    let opened = trust::open(path, OFlags::NONBLOCK).map_err(|fault| match fault {
        Fault::Io(fault) => unreadable(path, &fault),
        Fault::Untrusted(sentence) => format!("{} {sentence}", path.display()),
    })?;
    if !opened.of.is_file() {
        return Err(format!("{} is not a file: correct the path", path.display()));
    }
    let mut bytes = Vec::new();
    let file = opened.file;
    file.take(MOST_BYTES.saturating_mul(16))
        .read_to_end(&mut bytes)
        .map_err(|fault| unreadable(path, &fault))?;
    Ok(bytes)
}

/// Whether there is no such file, or nothing in it.
pub(super) fn is_blank(path: &Path) -> bool {
    match read(path) {
        Ok(bytes) => without_mark(&bytes).iter().all(u8::is_ascii_whitespace),
        Err(_) => !path.exists(),
    }
}

/// Reads an API key or a token, of which a byte order mark before it is no part.
pub(super) fn secret(path: &Path) -> Result<Secret, String> {
    let bytes = read(path)?;
    let shown = path.display();
    if bytes.len() as u64 > MOST_BYTES {
        return Err(format!(
            "{shown} is over 64 KiB: name the file that holds the key alone"
        ));
    }
    let text = std::str::from_utf8(without_mark(&bytes));
    let text = text.map_err(|_| format!("{shown} {}", values::UNSENDABLE))?;
    let secret = Secret::new(text).ok_or_else(|| format!("{shown} is empty: write the key into it"))?;
    match values::check_secret(&secret) {
        Ok(()) => Ok(secret),
        Err(sentence) => Err(format!("{shown} {sentence}")),
    }
}

/// Reads the key for hashes. Any bytes will do.
pub(super) fn hash_key(path: &Path) -> Result<HashKey, String> {
    let bytes = read(path)?;
    HashKey::new(&bytes).ok_or_else(|| {
        format!(
            "{} holds less than {} bytes, which could be guessed: make it with openssl rand -hex 32",
            path.display(),
            HashKey::FEWEST_BYTES
        )
    })
}

/// Whether a file holds certificates in PEM.
pub(super) fn certificates(path: &Path) -> Result<(), String> {
    let bytes = read(path)?;
    match reqwest::Certificate::from_pem_bundle(&bytes) {
        Ok(certificates) if !certificates.is_empty() => Ok(()),
        _ => Err(format!(
            "{} holds no certificate in PEM: export it as PEM",
            path.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let written = |bytes: &[u8]| std::fs::write(&path, bytes).expect("written");
        for bytes in [&b"abc"[..], b"abc\n", b"\xef\xbb\xbfabc\r\n", b"\xef\xbb\xbf abc"] {
            written(bytes);
            assert_eq!(secret(&path).expect("a key").expose(), "abc");
            assert!(!is_blank(&path));
        }
        written(b"\xef\xbb\xbf\r\n");
        assert!(secret(&path).expect_err("no key").contains("is empty") && is_blank(&path));
        written(b"abc\xef\xbb\xbf");
        assert!(secret(&path).is_err(), "only before it");
    }
}
