//! What a rule of a site is for, compiled once: no pattern is read and nothing is allocated when a
//! request comes.

use http::header::HeaderName;
use http::{HeaderMap, Method, StatusCode};
use meridian_config::site_rule::{FieldTest, When as WhenConfig, status_range};
use percent_encoding::percent_decode;

/// What rules see of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) method: &'a Method,
    /// Without its port.
    pub(crate) host: Option<&'a str>,
    /// In the spelling of keys.
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) headers: &'a HeaderMap,
}

/// The conditions of one rule. All must hold; of a list, one entry.
#[derive(Debug, Clone)]
pub(crate) struct When {
    path: Box<[Glob]>,
    host: Box<[Box<str>]>,
    method: Box<[Method]>,
    header: Box<[(HeaderName, Test)]>,
    query: Box<[(Box<str>, Test)]>,
    status: Box<[(u16, u16)]>,
    response_header: Box<[(HeaderName, Test)]>,
}

impl When {
    /// `spelled` puts a text into the spelling of keys. What `check` has let through is whole.
    pub(crate) fn new(config: &WhenConfig, spelled: impl Fn(&str) -> String) -> Self {
        let fields = |tests: &[FieldTest]| {
            let one = |test: &FieldTest| {
                let name = HeaderName::from_bytes(test.name.as_bytes()).ok()?;
                Some((name, Test::new(test)))
            };
            tests.iter().filter_map(one).collect()
        };
        let method = |name: &String| Method::from_bytes(name.as_bytes()).ok();
        Self {
            path: config.path.iter().map(|path| Glob::new(&spelled(path.as_str()))).collect(),
            host: config.host.iter().map(|host| Box::from(host.as_str())).collect(),
            method: config.method.iter().filter_map(method).collect(),
            header: fields(&config.header),
            query: config.query.iter().map(|q| (Box::from(&*q.name), Test::new(q))).collect(),
            status: config.status.iter().filter_map(|status| status_range(status)).collect(),
            response_header: fields(&config.response_header),
        }
    }

    /// Whether it depends on something of the request that no key holds by itself.
    pub(crate) fn is_beside_key(&self) -> bool {
        !self.host.is_empty() || !self.header.is_empty() || !self.query.is_empty()
    }

    pub(crate) fn names_status(&self) -> bool {
        !self.status.is_empty()
    }

    pub(crate) fn is_of_response(&self) -> bool {
        !self.status.is_empty() || !self.response_header.is_empty()
    }

    /// Whether the request is one that it is for.
    pub(crate) fn takes_request(&self, seen: &Seen<'_>) -> bool {
        let any = |is_empty: bool, one: bool| is_empty || one;
        any(self.path.is_empty(), self.path.iter().any(|glob| glob.matches(seen.path.as_bytes())))
            && any(self.method.is_empty(), self.method.contains(seen.method))
            && any(self.host.is_empty(), self.is_host(seen.host))
            && hold(&self.header, seen.headers)
            && self.query.iter().all(|(name, test)| test.of_parameter(name, seen.query))
    }

    fn is_host(&self, host: Option<&str>) -> bool {
        let host = host.unwrap_or_default().trim_end_matches('.');
        self.host.iter().any(|known| known.eq_ignore_ascii_case(host))
    }

    /// Whether the response is one that it is for.
    pub(crate) fn takes_response(&self, status: StatusCode, fields: &HeaderMap) -> bool {
        let code = status.as_u16();
        let one = self.status.iter().any(|(first, last)| (*first..=*last).contains(&code));
        (self.status.is_empty() || one) && hold(&self.response_header, fields)
    }
}

fn hold(tests: &[(HeaderName, Test)], fields: &HeaderMap) -> bool {
    tests.iter().all(|(name, test)| test.of_field(name, fields))
}

/// What one field or parameter must be like.
#[derive(Debug, Clone)]
enum Test {
    Present,
    Absent,
    Equals(Box<[u8]>),
    Matches(Glob),
}

impl Test {
    fn new(config: &FieldTest) -> Self {
        match (&config.equals, &config.matches) {
            (Some(text), _) => Self::Equals(text.as_bytes().into()),
            (None, Some(pattern)) => Self::Matches(Glob::new(pattern)),
            (None, None) if config.present == Some(false) => Self::Absent,
            (None, None) => Self::Present,
        }
    }

    fn of_field(&self, name: &HeaderName, fields: &HeaderMap) -> bool {
        let mut lines = fields.get_all(name).iter();
        match self {
            Self::Present => lines.next().is_some(),
            Self::Absent => lines.next().is_none(),
            Self::Equals(text) => lines.any(|line| line.as_bytes() == &**text),
            Self::Matches(glob) => lines.any(|line| glob.matches(line.as_bytes())),
        }
    }

    /// Names and values are compared as the origin reads them, percent-decoded.
    fn of_parameter(&self, name: &str, query: Option<&str>) -> bool {
        let pairs = query.into_iter().flat_map(|query| query.split('&'));
        let mut values = pairs.filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            percent_decode(key.as_bytes()).eq(name.bytes()).then_some(value.as_bytes())
        });
        match self {
            Self::Present => values.next().is_some(),
            Self::Absent => values.next().is_none(),
            Self::Equals(text) => {
                values.any(|value| percent_decode(value).eq(text.iter().copied()))
            }
            // A value without encodings is borrowed.
            Self::Matches(glob) => {
                values.any(|value| glob.matches(&std::borrow::Cow::from(percent_decode(value))))
            }
        }
    }
}

/// A pattern: a `*` stands for any run of bytes.
#[derive(Debug, Clone)]
struct Glob {
    first: Box<[u8]>,
    /// `None`: no star.
    rest: Option<Rest>,
}

/// What must stand behind the first star.
#[derive(Debug, Clone)]
struct Rest {
    /// Between stars, in this order.
    middle: Box<[Box<[u8]>]>,
    /// At the end.
    last: Box<[u8]>,
}

impl Glob {
    fn new(pattern: &str) -> Self {
        let mut pieces: Vec<Box<[u8]>> =
            pattern.split('*').map(|piece| piece.as_bytes().into()).collect();
        let first = pieces.remove(0); // a split has one piece at least
        let rest = pieces.pop().map(|last| Rest { middle: pieces.into(), last });
        Self { first, rest }
    }

    /// The whole of `text`; linear in it times the pieces.
    fn matches(&self, text: &[u8]) -> bool {
        let Some(mut left) = text.strip_prefix(&*self.first) else { return false };
        let Some(Rest { middle, last }) = &self.rest else { return left.is_empty() };
        for piece in middle {
            let Some(at) = position(left, piece) else { return false };
            left = left.get(at + piece.len()..).unwrap_or_default();
        }
        left.ends_with(last)
    }
}

fn position(text: &[u8], piece: &[u8]) -> Option<usize> {
    if piece.is_empty() {
        return Some(0);
    }
    text.windows(piece.len()).position(|window| window == piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn when(text: &str) -> When {
        When::new(&toml::from_str(text).unwrap(), str::to_owned)
    }

    fn takes(text: &str, target: &str, fields: &[(&'static str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let host = Some("Shop.example.");
        let seen = Seen { method: &Method::GET, host, path, query, headers: &headers };
        when(text).takes_request(&seen)
    }

    #[test]
    fn all_conditions_must_hold_and_of_a_list_one() {
        let rows: [(&str, &str, bool); 14] = [
            ("", "/", true),
            ("path = ['/a*', '*.css']", "/x.css", true),
            ("path = ['/a*', '*.css']", "/b", false),
            ("path = ['/a*']\nmethod = ['POST']", "/a", false),
            ("path = ['/a*']\nmethod = ['POST', 'GET']", "/a", true),
            ("host = ['other.example', 'shop.example']", "/", true),
            ("host = ['other.example']", "/", false),
            ("query = [{ name = 'a' }]", "/?b=1&a", true),
            ("query = [{ name = 'a' }]", "/?b=a", false),
            ("query = [{ name = 'a', present = false }]", "/?b=1", true),
            ("query = [{ name = 'a b', equals = '1 2' }]", "/?a%20b=1%202", true),
            ("query = [{ name = 'a', equals = '1' }]", "/?a=2&a=1", true),
            ("query = [{ name = 'a', matches = '1*3' }]", "/?a=1%323", true),
            ("query = [{ name = 'a' }, { name = 'b' }]", "/?a", false),
        ];
        for (text, target, want) in rows {
            assert_eq!(takes(text, target, &[]), want, "{text} on {target}");
        }
    }

    #[test]
    fn fields_are_compared_line_by_line() {
        type Row = (&'static str, &'static [(&'static str, &'static str)], bool);
        let rows: [Row; 8] = [
            ("header = [{ name = 'X-A' }]", &[("x-a", "")], true),
            ("header = [{ name = 'X-A' }]", &[], false),
            ("header = [{ name = 'X-A', present = false }]", &[], true),
            ("header = [{ name = 'X-A', equals = 'b' }]", &[("x-a", "a"), ("x-a", "b")], true),
            ("header = [{ name = 'X-A', equals = 'b' }]", &[("x-a", "B")], false),
            ("header = [{ name = 'X-A', matches = '*b*' }]", &[("x-a", "abc")], true),
            ("header = [{ name = 'X-A', matches = 'b*' }]", &[("x-a", "abc")], false),
            ("header = [{ name = 'x-a' }, { name = 'x-b' }]", &[("x-a", "1")], false),
        ];
        for (text, fields, want) in rows {
            assert_eq!(takes(text, "/", fields), want, "{text} on {fields:?}");
        }
    }

    #[test]
    fn statuses_come_one_by_one_and_in_classes() {
        let rows = [
            ("", 500, true),
            ("status = ['404']", 404, true),
            ("status = ['404']", 405, false),
            ("status = ['404', '5xx']", 599, true),
            ("status = ['4xx']", 399, false),
        ];
        for (text, status, want) in rows {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(when(text).takes_response(status, &HeaderMap::new()), want, "{text}");
        }
        let mut html = HeaderMap::new();
        html.insert("content-type", "text/html; charset=utf-8".parse().unwrap());
        let of_type = |pattern: &str| {
            let text =
                format!("response_header = [{{ name='content-type', matches='{pattern}' }}]");
            when(&text).takes_response(StatusCode::OK, &html)
        };
        assert!(of_type("text/*") && !of_type("image/*"));
    }

    proptest::proptest! {
        #[test]
        fn a_glob_matches_what_its_stars_are_replaced_by(
            pieces in proptest::collection::vec("[ab/]{0,3}", 1..5), fill in "[ab/]{0,3}",
        ) {
            let (pattern, text) = (pieces.join("*"), pieces.join(&fill));
            proptest::prop_assert!(
                Glob::new(&pattern).matches(text.as_bytes()) == (pieces.len() > 1 || text == pattern)
            );
        }

        #[test]
        fn a_glob_agrees_with_the_patterns_of_paths(
            pattern in "/[ab*]{0,6}", text in "/[ab]{0,8}",
        ) {
            let parsed: meridian_config::pattern::PathPattern = pattern.parse().unwrap();
            proptest::prop_assert_eq!(
                Glob::new(&pattern).matches(text.as_bytes()), parsed.matches(&text)
            );
        }
    }
}
