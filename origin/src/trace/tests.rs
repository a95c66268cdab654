//! Of the synthetic objects.

use std::io::Write;

use meridian_config::units::ByteSize;
use tempfile::NamedTempFile;

use super::Trace;
use crate::body::Source;
use crate::representation::Found;
use crate::target::Target;

fn read(text: &str) -> Result<Trace, String> {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let read = Trace::read(file.path(), Some(ByteSize::bytes(77)));
    read.map_err(|error| error.to_string().rsplit("\": ").next().unwrap().to_owned())
}

fn size(trace: &Trace, uri: &str) -> Option<u64> {
    match trace.find(&Target::of(&uri.parse().unwrap())) {
        Found::Here(representation) => Some(representation.length),
        _ => None,
    }
}

#[test]
fn columns_are_found_by_name_and_keys_become_targets() {
    let trace = read("t,size, key,x\n0,10,7,a\n1,20,/x?q=abc,b\n2,,/none,c\n3,30,7,d\n4\n");
    assert_eq!(trace.unwrap_err(), "line 6: the key must be a number, or start with '/'");

    let trace = read("t,size, key,x\n0,10,7,a\n1,20,/x?q=abc,b\n2,,/none,c\n3,30,7,d\n").unwrap();
    let rows = [
        ("/o/7", Some(10)), // the first of its sizes
        ("/x?q=abc", Some(20)),
        ("/x", None),
        ("/x?q=ab", None),
        ("/none", Some(77)),
        ("/o/8", None),
    ];
    for (uri, want) in rows {
        assert_eq!(size(&trace, uri), want, "{uri}");
    }
    assert_eq!(trace.len(), 3);
}

#[test]
fn a_target_is_found_in_every_equivalent_form() {
    let trace = read("key,size\n/b%3acables,1\n/%7euser,2\n/a%2Fb,3\n/plain,4\n").unwrap();
    let rows = [
        ("/b%3acables", Some(1)),
        ("/b%3Acables", Some(1)),
        ("/b:cables", None), // not equivalent (RFC 3986 §2.2)
        ("/~user", Some(2)),
        ("/%7Euser", Some(2)),
        ("/a%2fb", Some(3)),
        ("/a/b", None),
        ("/pl%61in", Some(4)),
    ];
    for (uri, want) in rows {
        assert_eq!(size(&trace, uri), want, "{uri}");
    }
}

#[test]
fn a_trace_without_sizes_has_objects_of_the_default_size() {
    let trace = read("seq,key\n0,1\n1,2\n").unwrap();
    assert_eq!(size(&trace, "/o/2"), Some(77));
}

#[test]
fn what_is_no_trace_is_refused_with_line_and_rule() {
    let rows = [
        ("", "its first line must name the columns, and one of them must be \"key\""),
        ("a,b\n1,2\n", "its first line must name the columns, and one of them must be \"key\""),
        ("key,size\n", "holds no object: there must be lines below the first"),
        ("key,size\nabc,1\n", "line 2: the key must be a number, or start with '/'"),
        ("key,size\n1,1\n-1,1\n", "line 3: the key must be a number, or start with '/'"),
        ("key,size\n1,x\n", "line 2: the size \"x\" must be a number of bytes"),
        ("key,size\n1,-5\n", "line 2: the size \"-5\" must be a number of bytes"),
    ];
    for (text, want) in rows {
        assert_eq!(read(text).unwrap_err(), want, "{text:?}");
    }
}

#[test]
fn tags_differ_by_key_and_by_size() {
    let (one, other) = (read("key,size\n1,10\n11,0\n").unwrap(), read("key,size\n1,11\n").unwrap());
    let tag = |trace: &Trace, uri: &str| match trace.find(&Target::of(&uri.parse().unwrap())) {
        Found::Here(found) => {
            assert!(matches!(found.source, Source::Made(_)));
            found.validators.etag.unwrap()
        }
        _ => panic!("{uri} is there"),
    };
    assert!(!tag(&one, "/o/1").weak);
    assert_ne!(tag(&one, "/o/1"), tag(&other, "/o/1"));
    assert_ne!(tag(&one, "/o/1"), tag(&one, "/o/11"));
    assert_eq!(tag(&one, "/o/1"), tag(&read("key,size\n1,10\n").unwrap(), "/o/1"));
}
