//! Who may change links: bearer tokens (RFC 6750) with the scope `operate`.
//!
//! # Invariants
//! - No secret is kept, only its SHA-256; every token is compared, each in constant time.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use meridian_config::shared::{Scope, Token};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::error::NetError;
use crate::problem::{Code, Problem};

/// The longest file of a token, in bytes.
const MAX_FILE: u64 = 4_096;

/// The shortest secret, in characters.
const MIN_SECRET: usize = 16;

/// The tokens that the API accepts.
#[derive(Debug)]
pub(crate) struct Tokens(Vec<Known>);

#[derive(Debug)]
struct Known {
    name: String,
    may_operate: bool,
    digest: [u8; 32],
}

impl Tokens {
    /// Reads the files of `tokens`. Blocks.
    pub(crate) fn read(tokens: &[Token]) -> Result<Self, NetError> {
        let known = |token: &Token| {
            let digest = digest_in(&token.file).map_err(|rule| NetError::Token {
                name: token.name.clone(),
                file: token.file.clone(),
                rule,
            })?;
            let may_operate = token.scopes.contains(&Scope::Operate);
            Ok(Known { name: token.name.clone(), may_operate, digest })
        };
        tokens.iter().map(known).collect::<Result<_, NetError>>().map(Self)
    }

    /// Lets who shows a token of the scope pass.
    pub(crate) fn authorize(&self, headers: &HeaderMap) -> Result<(), Problem> {
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
        match found {
            Some(known) if known.may_operate => Ok(()),
            Some(known) => {
                let detail = format!("the token {:?} lacks the scope \"operate\"", known.name);
                Err(Problem::new(Code::Forbidden, detail))
            }
            None => Err(Problem::new(Code::Unauthorized, "no token has this secret")),
        }
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
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.len() < MIN_SECRET || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        let rule = "must hold one line, a secret of at least 16 visible characters";
        return Err(rule.to_owned());
    }
    Ok(Sha256::digest(secret.as_bytes()).into())
}
