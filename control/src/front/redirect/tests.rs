//! Tables of redirects, without sockets.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, Uri, Version};
use meridian_config::control::Prefix;
use meridian_control_wire::EdgeView;
use meridian_control_wire::problem::ErrorCode;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::{Sources, Target, located_at, named_host};
use crate::asker::Prefixes;
use crate::steer::Map;

#[test]
fn a_target_keeps_its_bytes_but_for_the_parameter() {
    let rows = [
        ("/", "/", None),
        ("/a/b?c=d&e", "/a/b?c=d&e", None),
        ("/a?", "/a?", None),
        ("/a?meridian-from=fra", "/a", Some("fra")),
        ("/a?meridian-from=50.03%2C8.57", "/a", Some("50.03,8.57")),
        ("/a?b=c&meridian-from=fra&d=%2f", "/a?b=c&d=%2f", Some("fra")),
        ("/a?meridian-from=fra&b=c&meridian-from=nrt", "/a?b=c", Some("fra")),
        ("/a?meridian-from", "/a", Some("")),
        ("/a?meridian-from=%ff", "/a", Some("\u{fffd}")),
        ("/a?xmeridian-from=fra&&", "/a?xmeridian-from=fra&&", None),
        ("/a?b=meridian-from=fra", "/a?b=meridian-from=fra", None),
        ("//evil.example/x", "//evil.example/x", None),
        ("http://other.example/a?b", "/a?b", None),
        ("http://other.example", "/", None),
        ("http://other.example?meridian-from=fra", "/", Some("fra")),
    ];
    for (text, path, from) in rows {
        let got = Target::of(&text.parse::<Uri>().unwrap()).unwrap();
        let want = Target { path: path.to_owned(), from: from.map(str::to_owned) };
        assert_eq!(got, want, "{text}");
    }
    for text in ["*", "other.example:80"] {
        let refusal = Target::of(&text.parse::<Uri>().unwrap()).unwrap_err();
        assert_eq!(refusal.code(), ErrorCode::BadRequest, "{text}");
    }
}

#[test]
fn an_http_1_1_request_names_its_host_once() {
    let rows = [
        (Version::HTTP_11, &["a.example"][..], true),
        (Version::HTTP_11, &["a.example:8080"], true),
        (Version::HTTP_11, &["[::1]:80"], true),
        (Version::HTTP_11, &[""], true),
        (Version::HTTP_11, &[], false),
        (Version::HTTP_11, &["a", "a"], false),
        (Version::HTTP_11, &["a/b"], false),
        (Version::HTTP_11, &["u@a"], false),
        (Version::HTTP_10, &[], true),
        (Version::HTTP_10, &["a", "b"], false),
        (Version::HTTP_2, &[], true),
    ];
    for (version, hosts, want) in rows {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append("host", HeaderValue::from_static(host));
        }
        assert_eq!(named_host(version, &headers).is_ok(), want, "{version:?} {hosts:?}");
    }
}

fn edge(name: &str, region: &str) -> EdgeView {
    let text = format!(
        r#"{{"id":"{name}","name":"{name}","region":"{region}","city":"","location":[1.0,2.0],
            "url":"http://{name}","admin":"http://{name}:1","state":"healthy","heard_ms_ago":1,
            "intent":"active","active_requests":0,"requests_total":0,"store_bytes":0,
            "store_entries":0}}"#
    );
    serde_json::from_str(&text).unwrap()
}

#[test]
fn who_asks_from_where_is_told_in_order() {
    let net = Prefix { net: "192.0.2.0/24".to_owned(), from: "syd".to_owned() };
    let prefixes = Prefixes::of(&[net]).unwrap();
    let map = Map::of(&[edge("lab-1", "lab"), edge("nrt-1", "nrt")]);
    let (known, unknown) = ("192.0.2.7", "203.0.113.7");
    let rows = [
        // parameter, header field, trusted, address, default, label
        (Some("fra"), Some("nrt"), true, known, Some("iad"), Ok("fra")),
        (Some("lab"), None, false, known, None, Ok("lab")),
        (Some("192.0.2.9"), None, false, unknown, None, Ok("syd")),
        (Some("203.0.113.9"), None, false, known, None, Ok("syd")), // uncharted: on to the next
        (Some("mars"), Some("nrt"), true, known, Some("iad"), Err(ErrorCode::BadRequest)),
        (Some(""), None, true, known, None, Err(ErrorCode::BadRequest)),
        (None, Some("nrt"), true, known, Some("iad"), Ok("nrt")),
        (None, Some(" nrt "), true, known, Some("iad"), Ok("nrt")),
        (None, Some("nrt"), false, known, Some("iad"), Ok("syd")),
        (None, Some("mars"), true, known, Some("iad"), Ok("syd")),
        (None, Some("mars"), true, unknown, Some("iad"), Ok("iad")),
        (None, None, true, known, Some("iad"), Ok("syd")),
        (None, None, true, unknown, Some("iad"), Ok("iad")),
        (None, None, true, unknown, Some("moon"), Ok("lab")), // nowhere: as if not configured
        (None, None, true, unknown, None, Ok("lab")),
    ];
    for (parameter, field, trust_from, from, default_from, want) in rows {
        let mut headers = HeaderMap::new();
        if let Some(field) = field {
            headers.insert("meridian-from", HeaderValue::from_static(field));
        }
        let default = default_from.map(|label| label.parse().unwrap());
        let default_from = default.as_ref();
        let sources = Sources { prefixes: &prefixes, trust_from, default_from, map: &map };
        let asker = sources.asker(parameter, &headers, from.parse().unwrap());
        let label = asker.map(|asker| asker.unwrap().label.unwrap().to_string());
        let label = label.map_err(|refusal| refusal.code());
        let want = want.map(str::to_owned);
        assert_eq!(label, want, "{parameter:?} {field:?} {trust_from} {from} {default:?}");
    }
    let nobody = Map::default();
    let sources =
        Sources { prefixes: &prefixes, trust_from: false, default_from: None, map: &nobody };
    let asker = sources.asker(None, &HeaderMap::new(), IpAddr::from([127, 0, 0, 1]));
    assert_eq!(asker.unwrap(), None);
}

#[test]
fn a_location_is_the_edge_and_a_path() {
    let rows = [
        ("/a?b=c", "http://e:1/a?b=c"),
        ("//evil.example/", "http://e:1//evil.example/"),
        ("/\\evil.example", "http://e:1/%5Cevil.example"),
        ("/%0d%0aSet-Cookie:x", "http://e:1/%0d%0aSet-Cookie:x"),
        ("/\r\nSet-Cookie: x", "http://e:1/%0D%0ASet-Cookie:%20x"),
        ("/ä\"<>{}|^`", "http://e:1/%C3%A4%22%3C%3E%7B%7D%7C%5E%60"),
        ("/@evil.example", "http://e:1/@evil.example"),
    ];
    for (path, want) in rows {
        let answer = located_at("http://e:1", path).unwrap();
        assert_eq!(answer.headers()["location"], want, "{path}");
        assert_eq!(answer.headers()["vary"], "*");
        assert_eq!(answer.headers()["cache-control"], "no-store");
    }
}

proptest! {
    #[test]
    fn whatever_a_client_sends_leads_to_the_edge(tail in any::<String>()) {
        let answer = located_at("http://edge.example:8081", &format!("/{tail}")).unwrap();
        let location = answer.headers()["location"].to_str().unwrap();
        prop_assert!(location.bytes().all(|byte| byte.is_ascii_graphic()));
        if let Ok(uri) = location.parse::<Uri>() {
            prop_assert_eq!(uri.authority().unwrap().as_str(), "edge.example:8081");
        } else {
            prop_assert!(location.starts_with("http://edge.example:8081/"));
        }
    }
}
