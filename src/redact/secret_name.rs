//! Which names say that a secret stands behind them, and which values are none all the same.
use std::ops::Range;

/// What a name says of the value behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secret {
    /// It is a password, which can look like anything.
    Password,
    /// It is a password or the working folder of a shell: `pwd`.
    PasswordOrFolder,
    /// It is a key or a token of one service or another.
    Key,
    /// It is a token, which can be a piece of text too.
    Token,
}

/// Names that end so, in lower case and without what parts their words.
const PASSWORDS: [&str; 9] = [
    "password",
    "passwords",
    "passwd",
    "passphrase",
    "passcode",
    "passwordconfirmation",
    "passwordconfirm",
    "passwort",
    "motdepasse",
];

/// The same for keys and tokens. A bare `token` is not among them, nor are counts of tokens.
const KEYS: [&str; 28] = [
    "secret",
    "secrets",
    "apikey",
    "apikeys",
    "secretkey",
    "privatekey",
    "accesskey",
    "signingkey",
    "encryptionkey",
    "accountkey",
    "sharedkey",
    "subscriptionkey",
    "masterkey",
    "accesstoken",
    "refreshtoken",
    "authtoken",
    "bearertoken",
    "apitoken",
    "sessiontoken",
    "securitytoken",
    "oauthtoken",
    "bottoken",
    "githubtoken",
    "gitlabtoken",
    "slacktoken",
    "hftoken",
    "npmtoken",
    "pypitoken",
];

/// Whole names of keys, which other names end like.
const WHOLE_KEYS: [&str; 5] = [
    "authorization",
    "proxyauthorization",
    "xauthorization",
    "httpauthorization",
    "idtoken",
];

/// The bytes that are looked at from the end of a name on.
const MOST_BYTES: usize = 64;

/// Longest of the names above.
const MOST_LETTERS: usize = 20;

/// Fewest characters of a value whose name is [`Secret::Token`].
const TOKEN_CHARS: usize = 20;

/// Words that stand where a value is missing, or tell of its type.
const NO_VALUES: [&str; 13] = [
    "null",
    "none",
    "nil",
    "undefined",
    "true",
    "false",
    "yes",
    "no",
    "required",
    "optional",
    "string",
    "redacted",
    "hidden",
];

impl Secret {
    /// What a name says, in whatever case and with whatever between its words: `api_key`,
    /// `X-Api-Key`, `openaiApiKey`, `DB_PASSWORD_2`.
    pub(super) fn named(name: &str) -> Option<Self> {
        let mut letters = [0; MOST_LETTERS];
        let mut from = MOST_LETTERS;
        let mut read = 0;
        for byte in name.bytes().rev().take(MOST_BYTES) {
            read += 1;
            let is_last = from == MOST_LETTERS;
            if byte.is_ascii_alphabetic() {
                if from == 0 {
                    read -= 1;
                    break;
                }
                from -= 1;
                letters[from] = byte.to_ascii_lowercase();
                if from == MOST_LETTERS - 3 && !may_end(&letters[from..]) {
                    return None;
                }
            } else if !byte.is_ascii() || (byte.is_ascii_digit() && !is_last) {
                read -= 1;
                break;
            }
        }
        let letters = &letters[from..];
        let is = |name: &&str| letters == name.as_bytes();
        let ends = |name: &&str| letters.ends_with(name.as_bytes());
        if read == name.len() && WHOLE_KEYS.iter().any(is) {
            Some(Secret::Key)
        } else if read == name.len() && is(&"token") {
            Some(Secret::Token)
        } else if KEYS.iter().any(ends) {
            Some(Secret::Key)
        } else if ends(&"pwd") {
            Some(Secret::PasswordOrFolder)
        } else {
            PASSWORDS.iter().any(ends).then_some(Secret::Password)
        }
    }

    /// The place of the secret in a value that stands by itself, such as a string of JSON.
    pub(super) fn within(self, value: &str) -> Option<Range<usize>> {
        let trimmed = value.trim();
        if trimmed.is_empty() || is_no_value(trimmed) {
            return None;
        }
        match self {
            Secret::PasswordOrFolder if is_folder(trimmed) => return None,
            Secret::Token if !is_opaque(trimmed) => return None,
            _ => {}
        }
        let front = value.len() - value.trim_start().len();
        let start = front + after_scheme(trimmed);
        Some(start..front + trimmed.len())
    }
}

/// Whether any of the names ends with these three letters: most do not.
fn may_end(letters: &[u8]) -> bool {
    matches!(
        letters,
        b"key"
            | b"eys"
            | b"ken"
            | b"ret"
            | b"ets"
            | b"ion"
            | b"irm"
            | b"ord"
            | b"rds"
            | b"swd"
            | b"pwd"
            | b"ase"
            | b"ode"
            | b"ort"
            | b"sse"
    )
}

/// What stands for a value that is not there, or that was taken out before.
pub(super) fn is_no_value(value: &str) -> bool {
    let inner = |open: &str, close: &str| value.strip_prefix(open)?.strip_suffix(close);
    let is_name = |name: &str| {
        let name = name.trim();
        name.chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ' | ':'))
    };
    let is_told = |word: &str| NO_VALUES.iter().any(|known| word.eq_ignore_ascii_case(known));
    let is_loud = |word: &str| is_name(word) && !word.contains(char::is_lowercase);
    let in_brackets = [("${", "}"), ("{{", "}}"), ("{", "}"), ("<", ">"), ("%(", ")s")];
    is_told(value)
        || inner("[", "]").is_some_and(|word| is_told(word) || is_loud(word))
        || value
            .chars()
            .all(|c| matches!(c, '*' | '•' | '.' | 'x' | 'X' | '-' | '_'))
        || in_brackets
            .iter()
            .any(|(open, close)| inner(open, close).is_some_and(is_name))
        || value.strip_prefix('$').is_some_and(is_variable)
        || value == "%s"
}

/// `OPENAI_API_KEY`
fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

fn is_folder(value: &str) -> bool {
    value.starts_with(['/', '~', '.']) || value.get(1..3) == Some(":\\")
}

/// The bytes of `Bearer ` and its like, which are no secret.
fn after_scheme(value: &str) -> usize {
    let Some((scheme, rest)) = value.split_once([' ', '\t']) else {
        return 0;
    };
    let schemes = ["bearer", "basic", "token", "apikey", "negotiate", "digest"];
    match schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        true => value.len() - rest.trim_start().len(),
        false => 0,
    }
}

/// Whether a value is long, of one piece, and has digits and letters: made by a machine.
pub(super) fn is_opaque(value: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '~' | '+' | '/' | '-' | '=');
    value.len() >= TOKEN_CHARS
        && value.chars().all(is_part)
        && value.bytes().any(|byte| byte.is_ascii_digit())
        && value.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// Whether a token consists of words, as names in code do: `os.environ.get`, `yourApiKey`,
/// `required-for-all`. The keys of machines have digits or letters of mixed case.
pub(super) fn is_words(token: &str) -> bool {
    token.split(|c: char| !c.is_ascii_alphanumeric()).all(is_word)
}

/// Whether it consists of several.
pub(super) fn is_several_words(token: &str) -> bool {
    let is_hump = |pair: &[u8]| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase();
    let parts = token.bytes().any(|byte| !byte.is_ascii_alphanumeric());
    (parts || token.as_bytes().windows(2).any(is_hump)) && is_words(token)
}

/// Letters of one case, or in humps of three letters at least.
fn is_word(part: &str) -> bool {
    let bytes = part.as_bytes();
    let is_lower = |byte: &u8| byte.is_ascii_lowercase();
    if bytes.iter().all(is_lower) || bytes.iter().all(u8::is_ascii_uppercase) {
        return true;
    }
    let mut rest = bytes;
    while let Some((first, more)) = rest.split_first() {
        let length = more.iter().take_while(|byte| is_lower(byte)).count();
        if !first.is_ascii_alphabetic() || length < 2 {
            return false;
        }
        rest = &more[length..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_by_how_they_end() {
        for (name, secret) in [
            ("api_key", Secret::Key),
            ("apikey", Secret::Key),
            ("X-Api-Key", Secret::Key),
            ("openaiApiKey", Secret::Key),
            ("OPENAI_API_KEY_2", Secret::Key),
            ("api_keys", Secret::Key),
            ("Authorization", Secret::Key),
            ("proxy-authorization", Secret::Key),
            ("client_secret", Secret::Key),
            ("aws_secret_access_key", Secret::Key),
            ("refreshToken", Secret::Key),
            ("private_key", Secret::Key),
            ("id_token", Secret::Key),
            ("password", Secret::Password),
            ("spring.datasource.password", Secret::Password),
            ("PGPASSWORD", Secret::Password),
            ("passwd", Secret::Password),
            ("password1", Secret::Password),
            ("passwordConfirmation", Secret::Password),
            ("DB_PWD", Secret::PasswordOrFolder),
            ("token", Secret::Token),
        ] {
            assert_eq!(Secret::named(name), Some(secret), "{name}");
        }
        for name in [
            "",
            "input",
            "task_id",
            "session_id",
            "user_id",
            "prompt_tokens",
            "completion_tokens",
            "max_tokens",
            "token_count",
            "tokens",
            "total_tokens",
            "max_completion_tokens",
            "eos_token",
            "next_page_token",
            "valid_token",
            "key",
            "keys",
            "primary_key",
            "cache_key",
            "key_id",
            "aws_access_key_id",
            "public_key",
            "secretary",
            "password_hint",
            "password_reset_url",
            "passwordless",
            "prior_authorization",
            "author",
            "secret_name",
            "api_key_id",
            "monkey",
            "pass",
            "compass",
            "api2key",
            "пароль",
            "idtoken_é_idtoken",
        ] {
            assert_eq!(Secret::named(name), None, "{name}");
        }
        for name in PASSWORDS.iter().chain(&KEYS).chain(&WHOLE_KEYS) {
            assert!(
                Secret::named(name).is_some() && name.len() <= MOST_LETTERS,
                "{name}"
            );
        }
        let long = format!("{}password", "a.".repeat(1000));
        assert_eq!(Secret::named(&long), Some(Secret::Password));
        assert_eq!(Secret::named(&"s".repeat(1000)), None);
    }

    #[test]
    fn a_value_is_secret_but_for_its_scheme_and_what_stands_for_none() {
        for (value, secret) in [
            ("hunter2", "hunter2"),
            (" correct horse ", "correct horse"),
            ("$ecret", "$ecret"),
            ("<a>b", "<a>b"),
            ("Bearer abc", "abc"),
            ("basic  YTpi", "YTpi"),
            ("1", "1"),
        ] {
            let place = Secret::Password.within(value).expect(value);
            assert_eq!(&value[place], secret);
        }
        for value in [
            "",
            " ",
            "null",
            "None",
            "true",
            "****",
            "xxxx",
            "...",
            "${API_KEY}",
            "$API_KEY",
            "{{ api.key }}",
            "<your-key>",
            "[REDACTED]",
            "[redacted]",
            "%s",
            "required",
        ] {
            assert_eq!(Secret::Password.within(value), None, "{value}");
        }
        assert_eq!(Secret::PasswordOrFolder.within("/home/ada"), None);
        assert_eq!(Secret::PasswordOrFolder.within("hunter2"), Some(0..7));
        assert_eq!(Secret::Token.within(" Hello"), None);
        assert_eq!(Secret::Token.within("0123456789abcdef0123"), Some(0..20));
    }

    #[test]
    fn words_are_told_from_keys() {
        for words in [
            "os.environ.get",
            "yourApiKey",
            "required-for-all",
            "process.env.API",
            "ApiKey",
            "plain",
        ] {
            assert!(is_words(words), "{words}");
        }
        for key in ["abc.d3f", "aXbYcZ", "sk-proj-aB3", "AbCdEf"] {
            assert!(!is_words(key), "{key}");
        }
        assert!(is_several_words("accessToken") && !is_several_words("correcthorse"));
    }
}
