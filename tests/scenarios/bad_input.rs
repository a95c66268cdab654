//! What goes wrong gets a clear answer, and the node goes on.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};

use meridian_tests::client::Client;
use meridian_tests::cluster::Cluster;
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{ScriptedOrigin, ok};
use meridian_tests::process::Process;
use meridian_tests::raw;
use meridian_tests::site::Site;
use socket2::{Domain, Socket, Type};

#[tokio::test]
async fn an_unknown_key_is_refused_with_the_nearest_known_one() {
    let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let text = "name = \"fra-1\"\nregion = \"fra\"\nlistne = \"127.0.0.1:0\"\n\
                admin = \"127.0.0.1:0\"\n[cache]\ncapacity = \"1KiB\"\n";
    file.write_all(text.as_bytes()).unwrap();
    let path = file.path().to_str().unwrap();
    for arguments in [["edge", "--config", path].as_slice(), &["check", path]] {
        let ended = Process::run(arguments).await;
        assert_eq!(ended.status.code(), Some(78), "{ended:?}");
        let said = format!("{}{}", ended.stdout, ended.stderr);
        for word in [path, "listne", "listen", "capacity", "1MiB"] {
            assert!(said.contains(word), "{arguments:?} does not say {word}: {said}");
        }
    }
}

#[tokio::test]
async fn a_front_door_port_held_by_somebody_else_is_an_error() {
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    // SO_REUSEPORT would let the front door bind beside it and get every other client.
    let shared = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    shared.set_reuse_port(true).unwrap();
    shared.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    shared.listen(16).unwrap();
    let held = [plain.local_addr().unwrap(), shared.local_addr().unwrap().as_socket().unwrap()];
    for address in held {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("cluster");
        let port = address.port().to_string();
        let ended = Process::run(&["up", "--port", &port, "--dir", dir.to_str().unwrap()]).await;
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert!(ended.stderr.contains(&port), "{}", ended.stderr);
        assert!(!dir.join("cluster.json").exists());
    }
}

#[tokio::test]
async fn a_site_that_cannot_be_served_is_refused_before_anything_starts() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("cluster");
    let rows = [
        (vec!["/no/such/folder"], "/no/such/folder"),
        (vec!["https://example.org"], "https"),
        (vec!["--trace", "/no/such.csv"], "/no/such.csv"),
        (vec!["--regions", "fra,xyz"], "xyz"),
        (vec!["--replicas", "3"], "replicas"),
    ];
    for (site, word) in rows {
        let mut arguments = vec!["up", "--port", "0", "--dir", dir.to_str().unwrap()];
        arguments.extend(&site);
        let ended = Process::run(&arguments).await;
        assert!(ended.status.code().is_some_and(|code| code != 0), "{site:?}: {ended:?}");
        assert!(ended.stderr.contains(word), "{site:?}: {}", ended.stderr);
        assert!(!dir.join("cluster.json").exists(), "{site:?}");
    }
}

#[tokio::test]
async fn what_changes_state_needs_the_token() {
    let cluster = Cluster::start(&["--regions", "fra"]).await;
    let control = cluster.file().controls.first().unwrap().url.clone();
    let intent = format!("{control}/v1/regions/fra/intent");
    let drain = "{\"state\":\"drained\"}";
    for token in [None, Some("not-the-token-of-this-cluster"), Some("")] {
        let reply = Client::put_json(&intent, drain, token).await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (401, "unauthorized"),
            "{token:?}"
        );
        let challenge = reply.header("www-authenticate").unwrap_or_default();
        assert!(challenge.starts_with("Bearer"), "{token:?}: {challenge}");
    }
    let regions = Client::get(&format!("{control}/v1/regions")).await;
    assert!(!regions.text().contains("drained"), "{}", regions.text());
    let reply = Client::put_json(&intent, drain, Some(&cluster.token())).await;
    assert!(reply.status.is_success(), "{reply:?}");
}

#[tokio::test]
async fn a_host_that_no_site_claims_is_misdirected() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/", ok("the shop").header("cache-control", "max-age=60"));
    let edge = EdgeProcess::start(&origin, |config| {
        config.site[0].default = false;
        config.site[0].hosts = vec!["shop.example".parse().unwrap()];
    })
    .await;
    let url = format!("{}/", edge.url());
    for host in ["other.example", "shop.example.evil", "127.0.0.1"] {
        let reply = Client::get_with(&url, &[("host", host)]).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (421, "misdirected"), "{host}");
    }
    assert_eq!(origin.count("/"), 0);
    for host in ["shop.example", "SHOP.example:8080"] {
        let reply = Client::get_with(&url, &[("host", host)]).await;
        assert_eq!((reply.status.as_u16(), reply.text()), (200, "the shop"), "{host}");
    }
    assert_eq!(origin.count("/"), 1);
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_refused_and_the_edge_goes_on() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/", ok("fine").header("cache-control", "max-age=60"));
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let mebibyte = "x".repeat(1 << 20);
    let fields: String = (0..1_000).map(|at| format!("x-{at}: y\r\n")).collect();
    let rows = [
        format!("GET / HTTP/1.1\r\nHost: a\r\nX-Large: {mebibyte}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"),
    ];
    for request in rows {
        let answer = raw::exchange(edge.url(), request.as_bytes(), raw::is_whole).await;
        assert_eq!(raw::status(&answer), 431, "{answer}");
        assert_eq!(edge.get("/").await.text(), "fine");
    }
    let target = format!("GET /{mebibyte} HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = raw::exchange(edge.url(), target.as_bytes(), raw::is_whole).await;
    assert!([414, 431].contains(&raw::status(&answer)), "{answer}");
    assert_eq!(edge.get("/").await.text(), "fine");
}

#[tokio::test]
async fn bytes_that_are_no_http_are_refused_and_the_edge_goes_on() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/", ok("fine").header("cache-control", "max-age=60"));
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let rows: [&[u8]; 6] = [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n", // no Host: RFC 9112 section 3.2
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", // two
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    ];
    for request in rows {
        let answer = raw::exchange(edge.url(), request, raw::is_whole).await;
        let told = answer.is_empty() || (400..600).contains(&raw::status(&answer));
        assert!(told, "{:?}: {answer}", String::from_utf8_lossy(request));
        assert_eq!(edge.get("/").await.text(), "fine");
    }
}

/// RFC 9112 section 6.1: refused, or read by `Transfer-Encoding` alone and the connection closed.
#[tokio::test]
async fn a_request_with_two_lengths_smuggles_nothing() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/", ok("fine"));
    origin.script("/smuggled", ok("smuggled").header("cache-control", "max-age=60"));
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\
                   Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n\
                   GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = raw::exchange(edge.url(), request.as_bytes(), |_| false).await;
    assert!([200, 400].contains(&raw::status(&answer)), "{answer}");
    assert!(!answer.contains("smuggled") && answer.matches("HTTP/1.1 ").count() == 1, "{answer}");
    assert_eq!(origin.count("/smuggled"), 0);
    for seen in origin.requests("/") {
        let lengths = ["content-length", "transfer-encoding"].map(|name| seen.header(name));
        assert!(lengths.iter().flatten().count() <= 1, "{lengths:?}");
    }
}

#[tokio::test]
async fn a_range_that_cannot_be_is_ignored_or_refused_as_rfc_9110_says() {
    let site = Site::of([("/ten.txt", b"0123456789".to_vec())]);
    let cluster = Cluster::start(&[site.argument(), "--regions", "fra"]).await;
    let rows = [
        ("bytes=-3", 206, "789"),         // the last three
        ("bytes=--3", 200, "0123456789"), // negative: not the grammar, so not there (14.2)
        ("bytes=-5--2", 200, "0123456789"),
        ("bytes=5-2", 200, "0123456789"), // the last before the first: invalid (14.1.1)
        ("bytes=10-", 416, ""),           // behind the end
        ("bytes=-0", 416, ""),            // the last none
        ("bytes=99999999999999999999-", 416, ""),
        ("lines=1-2", 200, "0123456789"), // a unit nobody knows
    ];
    let edge = cluster.edge("fra").url;
    for warm in [false, true] {
        for (range, status, body) in rows {
            let reply = Client::get_with(&format!("{edge}/ten.txt"), &[("range", range)]).await;
            assert_eq!(reply.status.as_u16(), status, "{range}, warm {warm}: {reply:?}");
            if status != 416 {
                assert_eq!(reply.text(), body, "{range}, warm {warm}");
            }
        }
        assert_eq!(Client::get(&format!("{edge}/ten.txt")).await.text(), "0123456789");
    }
}

#[tokio::test]
async fn no_path_leads_out_of_the_folder() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("secret.txt"), "secret").unwrap();
    let public = home.path().join("public");
    std::fs::create_dir(&public).unwrap();
    std::fs::write(public.join("index.html"), "public").unwrap();
    std::os::unix::fs::symlink("../secret.txt", public.join("link.txt")).unwrap();
    let cluster = Cluster::start(&[public.to_str().unwrap(), "--regions", "fra"]).await;
    let origin = cluster.file().origins.first().unwrap().url.clone();
    let paths = [
        "/../secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e/secret.txt",
        "/%2e%2e%2fsecret.txt",
        "/..%5csecret.txt",
        "/a/../../secret.txt",
        "//../secret.txt",
        "/link.txt",
        "/index.html%00",
        "/%00",
        "/index.html%00.png",
        "/%",
        "/%zz",
    ];
    for server in [cluster.edge("fra").url, origin] {
        for path in paths {
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            let answer = raw::exchange(&server, request.as_bytes(), |_| false).await;
            assert!([400, 403, 404].contains(&raw::status(&answer)), "{path}: {answer}");
            assert!(
                !answer.contains("secret\n") && !answer.ends_with("secret"),
                "{path}: {answer}"
            );
        }
        assert_eq!(Client::get(&format!("{server}/")).await.text(), "public");
    }
}
