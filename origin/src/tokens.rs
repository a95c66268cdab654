//! Who may change something at the admin listener: bearer tokens (RFC 6750).
//!
//! # Invariants
//! - No secret is kept, only its SHA-256; every token is compared, each in constant time.
//! - A secret never reaches a log or a message.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use meridian_config::shared::{Scope, Token};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::error::RunError;
use crate::problem::{Code, Problem};

/// The longest file of a token, in bytes.
const MAX_FILE: u64 = 4_096;
/// The shortest secret, in characters.
const MIN_SECRET: usize = 16;

/// The tokens that the admin listener accepts.
#[derive(Debug)]
pub(crate) struct Tokens(Vec<Known>);

#[derive(Debug)]
struct Known {
    name: String,
    scopes: Vec<Scope>,
    digest: [u8; 32],
}

impl Tokens {
    /// Reads the files of `tokens`. Blocks.
    pub(crate) fn read(tokens: &[Token]) -> Result<Self, RunError> {
        let each = |token: &Token| {
            let digest = digest_in(&token.file).map_err(|why| RunError::Token {
                name: token.name.clone(),
                file: token.file.clone(),
                why,
            })?;
            Ok(Known { name: token.name.clone(), scopes: token.scopes.clone(), digest })
        };
        tokens.iter().map(each).collect::<Result<_, RunError>>().map(Self)
    }

    /// The name of the token shown, if it may do what needs `scope`.
    pub(crate) fn authorize(&self, headers: &HeaderMap, scope: Scope) -> Result<&str, Problem> {
        let shown = bearer(headers).ok_or_else(|| {
            let detail = "this needs a field Authorization: Bearer with a secret";
            Problem::new(Code::Unauthorized, detail)
        })?;
        let digest: [u8; 32] = Sha256::digest(shown.as_bytes()).into();
        let mut found = None;
        for known in &self.0 {
            if bool::from(known.digest.ct_eq(&digest)) {
                found = Some(known); // goes on: equal time for every token
            }
        }
        let known = found.ok_or_else(|| {
            Problem::new(Code::Unauthorized, "no token of this origin has this secret")
        })?;
        if known.scopes.contains(&scope) {
            return Ok(&known.name);
        }
        let detail = format!("the token {:?} lacks the scope \"operate\"", known.name);
        Err(Problem::new(Code::Forbidden, detail))
    }
}

/// What `Authorization: Bearer` shows; the scheme in any case (RFC 9110 §11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, secret) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim_matches(' '))
}

fn digest_in(file: &Path) -> Result<[u8; 32], String> {
    let mut text = String::new();
    let read = File::open(file).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
    read.map_err(|error| format!("cannot be read: {error}"))?;
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.len() < MIN_SECRET || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        let rule = "must hold one line, a secret of at least 16 visible characters";
        return Err(rule.to_owned());
    }
    Ok(Sha256::digest(secret.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use http::HeaderMap;
    use http::header::AUTHORIZATION;
    use meridian_config::shared::{Scope, Token};
    use tempfile::TempDir;

    use super::Tokens;
    use crate::problem::Code;

    fn token(dir: &TempDir, name: &str, secret: &str, scope: Scope) -> Token {
        let file = dir.path().join(name);
        fs::write(&file, secret).unwrap();
        Token { name: name.to_owned(), scopes: vec![scope], file }
    }

    #[test]
    fn only_a_known_secret_with_the_scope_may() {
        let dir = TempDir::new().unwrap();
        let tokens = Tokens::read(&[
            token(&dir, "boss", "0123456789abcdef\n", Scope::Operate),
            token(&dir, "purger", "fedcba9876543210", Scope::Purge),
        ]);
        let tokens = tokens.unwrap();
        let rows = [
            (None, Err(Code::Unauthorized)),
            (Some("Bearer 0123456789abcdef"), Ok("boss")),
            (Some("bearer  0123456789abcdef"), Ok("boss")),
            (Some("Bearer 0123456789abcdeF"), Err(Code::Unauthorized)),
            (Some("Bearer "), Err(Code::Unauthorized)),
            (Some("Basic 0123456789abcdef"), Err(Code::Unauthorized)),
            (Some("Bearer fedcba9876543210"), Err(Code::Forbidden)),
        ];
        for (field, want) in rows {
            let mut headers = HeaderMap::new();
            if let Some(field) = field {
                headers.insert(AUTHORIZATION, field.parse().unwrap());
            }
            let got = tokens.authorize(&headers, Scope::Operate).map_err(|problem| problem.code);
            assert_eq!(got, want, "{field:?}");
        }
    }

    #[test]
    fn a_file_without_a_secret_is_refused_and_not_told() {
        let dir = TempDir::new().unwrap();
        for secret in ["", "too-short", "0123456789 abcdef", "0123456789abcdef\n\n"] {
            let read = Tokens::read(&[token(&dir, "t", secret, Scope::Operate)]);
            let told = read.unwrap_err().to_string();
            assert!(told.ends_with("at least 16 visible characters"), "{told}");
            assert!(secret.is_empty() || !told.contains(secret), "{told}");
        }
    }
}
