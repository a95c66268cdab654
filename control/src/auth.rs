//! Who may: bearer tokens (RFC 6750) with names and scopes, and the secrets of edges.
//!
//! # Invariants
//! - No secret is kept: only its SHA-256. What is shown is hashed and compared in constant time,
//!   with every token, so that time tells neither how much of one was right nor whose it is.
//! - A secret never reaches a log or a message.

use std::fs;
use std::io::Read;
use std::path::Path;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use meridian_config::shared::{Scope, Token};
use meridian_control_wire::problem::ErrorCode;
use meridian_control_wire::secret::Secret;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::answer::Refusal;
use crate::error::RunError;

/// The longest file of a token, in bytes.
const MAX_FILE: u64 = 4_096;

/// The SHA-256 of a secret. The secrets have at least 64 bits of their own, most 256: no salt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(crate) fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    /// Whether it is the fingerprint of `shown`, in constant time.
    pub(crate) fn fits(&self, shown: &str) -> bool {
        self.0.ct_eq(&Self::of(shown).0).into()
    }
}

/// The tokens that a node accepts.
#[derive(Debug)]
pub(crate) struct Tokens(Vec<Known>);

#[derive(Debug)]
struct Known {
    name: String,
    scopes: Vec<Scope>,
    fingerprint: Fingerprint,
}

impl Tokens {
    /// Reads the files of `tokens`. Blocks.
    pub(crate) fn read(tokens: &[Token]) -> Result<Self, RunError> {
        let mut known: Vec<Known> = Vec::with_capacity(tokens.len());
        for token in tokens {
            let broken =
                |why| RunError::Token { name: token.name.clone(), file: token.file.clone(), why };
            let secret = secret_in(&token.file).map_err(broken)?;
            let fingerprint = Fingerprint::of(secret.expose());
            if let Some(other) = known.iter().find(|other| other.fingerprint == fingerprint) {
                let why =
                    format!("holds the secret of token {}: nobody could tell who", other.name);
                return Err(broken(why));
            }
            let (name, scopes) = (token.name.clone(), token.scopes.clone());
            known.push(Known { name, scopes, fingerprint });
        }
        Ok(Self(known))
    }

    /// The name of the token that `headers` show, if it may do what needs `scope`.
    pub(crate) fn authorize(&self, headers: &HeaderMap, scope: Scope) -> Result<&str, Refusal> {
        let shown = bearer(headers)?;
        let mut found = None;
        for known in &self.0 {
            if known.fingerprint.fits(shown) {
                found = Some(known); // goes on: equal time for every token
            }
        }
        let known = found.ok_or_else(|| {
            Refusal::new(ErrorCode::Unauthorized, "no token of this node has this secret")
        })?;
        if known.scopes.contains(&scope) {
            return Ok(&known.name);
        }
        let detail = format!("token {} lacks the scope {}", known.name, token_of(scope));
        Err(Refusal::new(ErrorCode::Forbidden, detail))
    }
}

/// What `Authorization: Bearer` shows (RFC 6750 §2.1); the scheme in any case (RFC 9110 §11.1).
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, secret)| secret.trim_matches(' '))
        .filter(|secret| !secret.is_empty())
        .ok_or_else(|| {
            let detail = "this needs a field Authorization: Bearer with a secret";
            Refusal::new(ErrorCode::Unauthorized, detail)
        })
}

/// The word of a scope in configuration and answers.
fn token_of(scope: Scope) -> &'static str {
    match scope {
        Scope::Purge => "purge",
        Scope::Publish => "publish",
        Scope::Config => "config",
        Scope::Operate => "operate",
        Scope::Edge => "edge",
    }
}

/// The secret that `file` holds. Blocks.
pub(crate) fn secret_in(file: &Path) -> Result<Secret, String> {
    let mut text = String::new();
    fs::File::open(file)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text))
        .map_err(|error| format!("cannot be read: {error}"))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    Secret::new(line.to_owned()).map_err(|rule| format!("must hold one line: {rule}"))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use meridian_config::shared::{Scope, Token};
    use meridian_control_wire::problem::ErrorCode;

    use super::Tokens;

    fn tokens(secrets: &[(&str, &str, Scope)]) -> Result<Tokens, String> {
        let folder = tempfile::tempdir().unwrap();
        let tokens: Vec<Token> = secrets
            .iter()
            .map(|(name, text, scope)| {
                let file = folder.path().join(name);
                std::fs::write(&file, text).unwrap();
                Token { name: (*name).to_owned(), scopes: vec![*scope], file }
            })
            .collect();
        Tokens::read(&tokens).map_err(|error| error.to_string())
    }

    #[test]
    fn a_token_is_known_by_its_secret_and_may_what_its_scopes_say() {
        let known = tokens(&[
            ("ci", "0123456789abcdef\n", Scope::Purge),
            ("anna", "fedcba9876543210\r\n", Scope::Operate),
        ])
        .unwrap();
        let rows = [
            (None, Err(ErrorCode::Unauthorized)),
            (Some("Bearer fedcba9876543210"), Ok("anna")),
            (Some("bearer  fedcba9876543210"), Ok("anna")),
            (Some("Bearer fedcba987654321"), Err(ErrorCode::Unauthorized)),
            (Some("Bearer fedcba98765432100"), Err(ErrorCode::Unauthorized)),
            (Some("Bearer 0123456789abcdef"), Err(ErrorCode::Forbidden)),
            (Some("Basic fedcba9876543210"), Err(ErrorCode::Unauthorized)),
            (Some("Bearer"), Err(ErrorCode::Unauthorized)),
            (Some("Bearer \u{e9}"), Err(ErrorCode::Unauthorized)),
            (Some(""), Err(ErrorCode::Unauthorized)),
        ];
        for (field, want) in rows {
            let mut headers = HeaderMap::new();
            if let Some(field) = field {
                let value = HeaderValue::from_bytes(field.as_bytes()).unwrap();
                headers.insert("authorization", value);
            }
            let got = known.authorize(&headers, Scope::Operate).map_err(|refusal| refusal.code());
            assert_eq!(got, want, "{field:?}");
        }
    }

    #[test]
    fn a_file_that_holds_no_secret_of_its_own_is_refused() {
        let rows = [
            ("", "16 to 256"),
            ("too-short\n", "16 to 256"),
            ("0123456789abcde\n", "16 to 256"),
            ("0123456789abcdef\nsecond line\n", "one line"),
            ("0123456789 abcdef", "visible"),
        ];
        for (text, want) in rows {
            let error = tokens(&[("a", text, Scope::Edge)]).unwrap_err();
            assert!(error.contains(want), "{text:?}: {error}");
        }
        let twice =
            [("a", "0123456789abcdef", Scope::Edge), ("b", "0123456789abcdef\n", Scope::Operate)];
        let error = tokens(&twice).unwrap_err();
        assert!(error.contains("secret of token a") && !error.contains("0123456789"), "{error}");
    }
}
