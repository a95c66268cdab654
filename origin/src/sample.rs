//! The built-in sample site: what a newcomer sees first, and what tells live who answered.

use std::collections::HashMap;

use bytes::Bytes;
use meridian_edge_rules::validate::{EntityTag, Validators};
use sha2::{Digest, Sha256};

use crate::body::Source;
use crate::hex::hex;
use crate::listing::{Collector, Listing};
use crate::problem::{Code, Problem};
use crate::representation::{Found, Representation, content_type};
use crate::target::Target;

/// The files, by path. `/` is `/index.html`.
const FILES: [(&str, &[u8]); 6] = [
    ("/index.html", include_bytes!("sample/index.html")),
    ("/caching.html", include_bytes!("sample/caching.html")),
    ("/404.html", include_bytes!("sample/404.html")),
    ("/styles.css", include_bytes!("sample/styles.css")),
    ("/app.js", include_bytes!("sample/app.js")),
    ("/meridian.svg", include_bytes!("sample/meridian.svg")),
];

/// The sample site.
#[derive(Debug)]
pub(crate) struct Sample {
    files: HashMap<&'static str, Representation>,
}

impl Sample {
    pub(crate) fn new() -> Self {
        let files = FILES.into_iter().map(|(path, content)| (path, representation(path, content)));
        Self { files: files.collect() }
    }

    /// A page of what is served.
    pub(crate) fn list(&self, after: Option<&str>) -> Listing {
        let mut collector = Collector::new(after);
        for (path, found) in &self.files {
            collector.offer(path, found.length);
        }
        collector.page()
    }

    pub(crate) fn find(&self, target: &Target) -> Found {
        if let Err(bad) = target.check() {
            return Found::Nothing(Problem::new(Code::BadRequest, bad.to_string()));
        }
        let path = if target.path == "/" { "/index.html" } else { &*target.path };
        match self.files.get(path) {
            Some(found) => Found::Here(found.clone()),
            None => Found::Missing(self.files.get("/404.html").cloned()),
        }
    }
}

/// Without `Last-Modified`: a file inside a program has no date that means anything.
fn representation(path: &str, content: &'static [u8]) -> Representation {
    let tag = EntityTag::strong(&hex(&Sha256::digest(content)));
    Representation {
        validators: Validators { etag: tag, ..Validators::default() },
        content_type: content_type(path),
        length: u64::try_from(content.len()).unwrap_or(u64::MAX),
        source: Source::Memory(Bytes::from_static(content)),
    }
}

#[cfg(test)]
mod tests {
    use super::{FILES, Sample};
    use crate::representation::Found;
    use crate::target::Target;

    #[test]
    fn every_link_of_the_site_leads_to_one_of_its_files() {
        let sample = Sample::new();
        let mut links = 0;
        for (path, content) in FILES {
            let text = std::str::from_utf8(content).unwrap();
            assert!(!text.contains("//cdn") && !text.contains("src=\"http"), "{path}");
            for attribute in ["href=\"", "src=\""] {
                for rest in text.split(attribute).skip(1) {
                    let link = rest.split(['"', '#']).next().unwrap();
                    if link.is_empty() {
                        continue; // within the page
                    }
                    assert!(link.starts_with('/'), "{path} links to {link}, outside of the site");
                    let found = sample.find(&Target::of(&link.parse().unwrap()));
                    assert!(matches!(found, Found::Here(_)), "{path} links to {link}");
                    links += 1;
                }
            }
        }
        assert!(links > 10, "{links}");
    }

    #[test]
    fn what_is_not_there_gets_the_page_that_says_so() {
        let found = Sample::new().find(&Target::of(&"/nothing".parse().unwrap()));
        let Found::Missing(Some(page)) = found else { panic!("{found:?}") };
        assert_eq!(page.content_type, "text/html; charset=utf-8");
    }
}
