//! The tags that a response bears, by which purges name it, and its groups, by which the answers of
//! its origin do.

use http::HeaderMap;
use meridian_edge_rules::groups::{CACHE_GROUPS, groups};

use crate::epochs::{Epochs, Tags};
use crate::scope::Place;

/// All of them, of a response that is to be stored at `place`, ready to be checked.
pub(crate) fn labels(
    epochs: &Epochs,
    place: &Place<'_>,
    surrogate: &HeaderMap,
    fields: &HeaderMap,
) -> Tags {
    let groups = groups(fields, &CACHE_GROUPS);
    epochs.labels(tags(surrogate), place, groups.iter().map(String::as_str))
}

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
