//! Structured fields (RFC 9651): what cache directives and groups need of them.
//!
//! Strict, as RFC 9651 §4.2 demands: one error, and the whole field is nothing.

use http::HeaderValue;

use crate::list::is_tchar;

/// An item without its parameters. Only what some reader looks at keeps its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Bare {
    Integer(i64),
    Boolean(bool),
    String(String),
    Token(String),
    /// A decimal, byte sequence, date or display string: well formed, and no directive's type.
    Other,
}

/// A value in a dictionary or a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Member {
    Item(Bare),
    InnerList,
}

/// The members of a dictionary in order, a repeated key with its last value; `None` if the field,
/// all its lines taken together, is not well formed.
pub(crate) fn dictionary<'a>(
    lines: impl Iterator<Item = &'a HeaderValue>,
) -> Option<Vec<(String, Member)>> {
    let text = lines.map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b", "[..]);
    let mut parser = Parser { rest: &text };
    let mut members: Vec<(String, Member)> = Vec::new();
    parser.skip(b" ");
    while !parser.rest.is_empty() {
        let key = parser.key()?;
        let member =
            if parser.eat(b'=') { parser.member()? } else { Member::Item(Bare::Boolean(true)) };
        parser.parameters()?;
        match members.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = member,
            None => members.push((key, member)),
        }
        parser.skip(b" \t");
        if parser.rest.is_empty() {
            break;
        }
        parser.eat(b',').then_some(())?;
        parser.skip(b" \t");
        (!parser.rest.is_empty()).then_some(())?; // a comma at the end
    }
    Some(members)
}

/// The members of a list (RFC 9651 §4.2.1), without their parameters; `None` if the field, all its
/// lines taken together, is not well formed.
pub(crate) fn list<'a>(lines: impl Iterator<Item = &'a HeaderValue>) -> Option<Vec<Member>> {
    let text = lines.map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b", "[..]);
    let mut parser = Parser { rest: &text };
    let mut members = Vec::new();
    parser.skip(b" ");
    while !parser.rest.is_empty() {
        let member = parser.member()?;
        parser.parameters()?;
        members.push(member);
        parser.skip(b" \t");
        if parser.rest.is_empty() {
            break;
        }
        parser.eat(b',').then_some(())?;
        parser.skip(b" \t");
        (!parser.rest.is_empty()).then_some(())?; // a comma at the end
    }
    Some(members)
}

/// Reads from the front, as RFC 9651 §4.2 describes.
pub(crate) struct Parser<'a> {
    pub(crate) rest: &'a [u8],
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.next();
        }
        found
    }

    pub(crate) fn skip(&mut self, bytes: &[u8]) {
        while self.peek().is_some_and(|byte| bytes.contains(&byte)) {
            self.next();
        }
    }

    fn take_while(&mut self, accept: impl Fn(u8) -> bool) -> String {
        let mut taken = String::new();
        while let Some(byte) = self.peek().filter(|byte| accept(*byte)) {
            taken.push(char::from(byte));
            self.next();
        }
        taken
    }

    /// §4.2.3.3.
    pub(crate) fn key(&mut self) -> Option<String> {
        self.peek().filter(|byte| byte.is_ascii_lowercase() || *byte == b'*')?;
        let later = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte)
        };
        Some(self.take_while(later))
    }

    fn member(&mut self) -> Option<Member> {
        if !self.eat(b'(') {
            return self.bare().map(Member::Item);
        }
        loop {
            self.skip(b" ");
            if self.eat(b')') {
                return Some(Member::InnerList);
            }
            self.bare()?;
            self.parameters()?;
            self.peek().filter(|byte| b" )".contains(byte))?;
        }
    }

    /// §4.2.3.2.
    pub(crate) fn parameters(&mut self) -> Option<Vec<(String, Bare)>> {
        let mut parameters = Vec::new();
        while self.eat(b';') {
            self.skip(b" ");
            let key = self.key()?;
            let value = if self.eat(b'=') { self.bare()? } else { Bare::Boolean(true) };
            parameters.push((key, value));
        }
        Some(parameters)
    }

    /// §4.2.3.1.
    pub(crate) fn bare(&mut self) -> Option<Bare> {
        match self.peek()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string().map(Bare::String),
            b'*' | b'A'..=b'Z' | b'a'..=b'z' => {
                Some(Bare::Token(self.take_while(|b| is_tchar(b) || b == b':' || b == b'/')))
            }
            b'?' => {
                self.next();
                match self.next()? {
                    b'0' => Some(Bare::Boolean(false)),
                    b'1' => Some(Bare::Boolean(true)),
                    _ => None,
                }
            }
            b':' => {
                self.next();
                self.take_while(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
                self.eat(b':').then_some(Bare::Other)
            }
            b'@' => {
                self.next();
                matches!(self.number()?, Bare::Integer(_)).then_some(Bare::Other)
            }
            b'%' => {
                self.next();
                self.eat(b'"').then_some(())?;
                self.take_while(|b| (b' '..=b'~').contains(&b) && b != b'"');
                self.eat(b'"').then_some(Bare::Other)
            }
            _ => None,
        }
    }

    /// §4.2.4: at most 15 digits, or 12 and 3 around a point.
    fn number(&mut self) -> Option<Bare> {
        let sign = if self.eat(b'-') { -1 } else { 1 };
        let whole = self.take_while(|byte| byte.is_ascii_digit());
        if !self.eat(b'.') {
            let fits = !whole.is_empty() && whole.len() <= 15;
            return Some(Bare::Integer(sign * fits.then(|| whole.parse::<i64>().ok())??));
        }
        let fraction = self.take_while(|byte| byte.is_ascii_digit());
        let fits = (1..=12).contains(&whole.len()) && (1..=3).contains(&fraction.len());
        fits.then_some(Bare::Other)
    }

    /// §4.2.5.
    fn string(&mut self) -> Option<String> {
        self.next(); // the opening quote
        let mut text = String::new();
        loop {
            match self.next()? {
                b'"' => return Some(text),
                b'\\' => {
                    let escaped = self.next().filter(|byte| b"\"\\".contains(byte))?;
                    text.push(char::from(escaped));
                }
                byte @ b' '..=b'~' => text.push(char::from(byte)),
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Option<Vec<(String, Member)>> {
        let lines = lines.iter().map(|l| HeaderValue::from_bytes(l.as_bytes()).unwrap());
        dictionary(lines.collect::<Vec<_>>().iter())
    }

    fn item(bare: Bare) -> Member {
        Member::Item(bare)
    }

    #[test]
    fn a_dictionary_is_read_to_its_last_byte_or_not_at_all() {
        type Row<'a> = (&'a [&'a str], Option<&'a [(&'a str, Member)]>);
        let rows: [Row<'_>; 22] = [
            (&[""], Some(&[])),
            (&["a"], Some(&[("a", item(Bare::Boolean(true)))])),
            (&["a=?0"], Some(&[("a", item(Bare::Boolean(false)))])),
            (&["a=-12"], Some(&[("a", item(Bare::Integer(-12)))])),
            (
                &["a=1", "b=2"],
                Some(&[("a", item(Bare::Integer(1))), ("b", item(Bare::Integer(2)))]),
            ),
            (&["a=1, a=2"], Some(&[("a", item(Bare::Integer(2)))])), // the last counts
            (
                &["a=1;x;y=\"z\" ,\tb"],
                Some(&[("a", item(Bare::Integer(1))), ("b", item(Bare::Boolean(true)))]),
            ),
            (&["a=tok/en:*"], Some(&[("a", item(Bare::Token("tok/en:*".into())))])),
            (&[r#"a="q \"\\""#], Some(&[("a", item(Bare::String(r#"q "\"#.into())))])),
            (&["a=(1 \"b\";c  d);e"], Some(&[("a", Member::InnerList)])),
            (
                &["a=1.5, b=:aGk=:, c=@17, d=%\"x%20\""],
                Some(&[
                    ("a", item(Bare::Other)),
                    ("b", item(Bare::Other)),
                    ("c", item(Bare::Other)),
                    ("d", item(Bare::Other)),
                ]),
            ),
            (&["a=999999999999999"], Some(&[("a", item(Bare::Integer(999_999_999_999_999)))])),
            (&["a=1000000000000000"], None), // 16 digits
            (&["a=1."], None),
            (&["A=1"], None), // keys are in lower case
            (&["a =1"], None),
            (&["a= 1"], None),
            (&["a=1,"], None),
            (&["a=1 b"], None),
            (&["a=\"x"], None),
            (&["a=(1"], None),
            (&["max-age=1, &&&"], None),
        ];
        for (lines, want) in rows {
            let want = want.map(|members| {
                members.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
            });
            assert_eq!(read(lines), want, "{lines:?}");
        }
    }
}
