//! The tags that a response bears, by which purges name it.

use http::HeaderMap;

/// Its tags: `Surrogate-Key` is separated by spaces, `Cache-Tag` by commas.
pub(crate) fn tags(surrogate: &HeaderMap) -> impl Iterator<Item = &str> {
    let of = |name: &'static str, separator: char| {
        let lines = surrogate.get_all(name).iter().filter_map(|value| value.to_str().ok());
        lines.flat_map(move |line| line.split(separator).map(str::trim))
    };
    of("surrogate-key", ' ').chain(of("cache-tag", ',')).filter(|tag| !tag.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_stand_in_two_fields_with_two_separators() {
        let mut fields = HeaderMap::new();
        fields.append("surrogate-key", "a  b".parse().unwrap());
        fields.append("surrogate-key", "c,d".parse().unwrap());
        fields.append("cache-tag", "e, f g,,".parse().unwrap());
        fields.append("x-tag", "h".parse().unwrap());
        assert_eq!(tags(&fields).collect::<Vec<_>>(), ["a", "b", "c,d", "e", "f g"]);
    }
}
