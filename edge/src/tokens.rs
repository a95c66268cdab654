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
            let digest = digest_in(&token.file)
                .map_err(|why| RunError::Token { path: token.file.clone(), reason: why })?;
            Ok(Known { name: token.name.clone(), scopes: token.scopes.clone(), digest })
        };
        tokens.iter().map(each).collect::<Result<_, RunError>>().map(Self)
    }

    /// The name of the token shown, if it may do what needs `scope`.
    pub(crate) fn authorize(&self, fields: &HeaderMap, scope: Scope) -> Result<&str, Denial> {
        let shown = bearer(fields).ok_or(Denial::Unknown)?;
        let digest: [u8; 32] = Sha256::digest(shown.as_bytes()).into();
        let mut found = None;
        for known in &self.0 {
            if bool::from(known.digest.ct_eq(&digest)) {
                found = Some(known); // goes on: equal time for every token
            }
        }
        let known = found.ok_or(Denial::Unknown)?;
        if known.scopes.contains(&scope) {
            return Ok(&known.name);
        }
        Err(Denial::Scope { name: known.name.clone() })
    }
}

/// Why a request may not.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denial {
    /// It shows no token that is known here.
    #[error("this needs a field Authorization: Bearer with the secret of a token of this edge")]
    Unknown,
    /// Its token may do other things.
    #[error("the token {name:?} lacks the scope \"operate\"")]
    Scope { name: String },
}

/// What `Authorization: Bearer` shows; the scheme in any case (RFC 9110 §11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, secret) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim_matches(' '))
}

fn digest_in(file: &Path) -> Result<[u8; 32], String> {
    Ok(Sha256::digest(secret_in(file)?.as_bytes()).into())
}

/// The secret that a file holds.
pub(crate) fn secret_in(file: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = File::open(file).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
    read.map_err(|error| format!("cannot be read: {error}"))?;
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.len() < MIN_SECRET || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        let rule = "must hold one line, a secret of at least 16 visible characters";
        return Err(rule.to_owned());
    }
    Ok(secret.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_a_known_secret_with_the_scope_may() {
        let dir = tempfile::tempdir().unwrap();
        let token = |name: &str, secret: &str, scope| {
            let file = dir.path().join(name);
            fs::write(&file, secret).unwrap();
            Token { name: name.to_owned(), scopes: vec![scope], file }
        };
        let tokens = Tokens::read(&[
            token("boss", "0123456789abcdef\n", Scope::Operate),
            token("purger", "fedcba9876543210", Scope::Purge),
        ])
        .unwrap();
        let short = Denial::Scope { name: "purger".to_owned() };
        let rows = [
            (None, Err(Denial::Unknown)),
            (Some("Bearer 0123456789abcdef"), Ok("boss")),
            (Some("bearer  0123456789abcdef"), Ok("boss")),
            (Some("Bearer 0123456789abcdeF"), Err(Denial::Unknown)),
            (Some("Bearer "), Err(Denial::Unknown)),
            (Some("Basic 0123456789abcdef"), Err(Denial::Unknown)),
            (Some("Bearer fedcba9876543210"), Err(short)),
        ];
        for (field, want) in rows {
            let mut fields = HeaderMap::new();
            if let Some(field) = field {
                fields.insert(AUTHORIZATION, field.parse().unwrap());
            }
            assert_eq!(tokens.authorize(&fields, Scope::Operate), want, "{field:?}");
        }
        assert!(Tokens::read(&[token("weak", "short", Scope::Operate)]).is_err());
    }
}
