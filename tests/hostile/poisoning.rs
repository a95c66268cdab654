//! Web cache poisoning and deception: what one client says in a place that the key does not hold
//! reaches no other client, and what is for one client is never stored, whatever its path looks
//! like.
//!
//! The origin here is as careless as can be: it shows every byte of the request that it got, and
//! says that all may keep the answer for a minute. So whatever of an attack reaches it is poison,
//! unless it is in the key or the answer is not stored.

use meridian_tests::edge::EdgeProcess;
use meridian_tests::raw_client::{Next, RawAnswer, RawClient};
use meridian_tests::raw_origin::{RawOrigin, keep, plain};

/// What the edge makes of an attack.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Verdict {
    /// Refused with this status; the origin hears nothing.
    Refused(u16),
    /// The origin does not see what was said.
    Dropped,
    /// It is stored under a key that the victim does not ask for.
    Keyed,
    /// It is answered for the attacker alone.
    Uncached,
}

use Verdict::{Dropped, Keyed, Refused, Uncached};

/// What it is; the target (`@` for the path); the fields and the body; the verdict.
type Attack = (&'static str, &'static str, &'static str, Verdict);

const HEAD: &str = "\r\n";

const FIELDS: &[Attack] = &[
    ("another host", "@", "X-Forwarded-Host: evil\r\n\r\n", Dropped),
    ("another host, in small letters", "@", "x-forwarded-host: evil\r\n\r\n", Dropped),
    ("another host, with an underscore", "@", "X_Forwarded_Host: evil\r\n\r\n", Dropped),
    ("another server", "@", "X-Forwarded-Server: evil\r\n\r\n", Dropped),
    ("another scheme", "@", "X-Forwarded-Scheme: evil\r\n\r\n", Dropped),
    ("another protocol", "@", "X-Forwarded-Proto: evil\r\n\r\n", Dropped),
    ("another port", "@", "X-Forwarded-Port: evil\r\n\r\n", Dropped),
    ("another prefix", "@", "X-Forwarded-Prefix: /evil\r\n\r\n", Dropped),
    ("another path", "@", "X-Forwarded-Path: /evil\r\n\r\n", Dropped),
    ("another URI", "@", "X-Forwarded-Uri: /evil\r\n\r\n", Dropped),
    ("over TLS", "@", "X-Forwarded-Ssl: evil\r\n\r\n", Dropped),
    ("over TLS, to a front end", "@", "Front-End-Https: evil\r\n\r\n", Dropped),
    ("a scheme of the URL", "@", "X-Url-Scheme: evil\r\n\r\n", Dropped),
    ("X-Host", "@", "X-Host: evil\r\n\r\n", Dropped),
    ("X-Original-Host", "@", "X-Original-Host: evil\r\n\r\n", Dropped),
    ("X-HTTP-Host-Override", "@", "X-HTTP-Host-Override: evil\r\n\r\n", Dropped),
    ("X-Original-URL", "@", "X-Original-URL: /evil\r\n\r\n", Dropped),
    ("X-Rewrite-URL", "@", "X-Rewrite-URL: /evil\r\n\r\n", Dropped),
    ("Base-Url", "@", "Base-Url: http://evil/\r\n\r\n", Dropped),
    ("Forwarded", "@", "Forwarded: for=evil;host=evil\r\n\r\n", Dropped),
    ("another address", "@", "X-Forwarded-For: evil\r\n\r\n", Dropped),
    ("X-Real-IP", "@", "X-Real-IP: evil\r\n\r\n", Dropped),
    ("X-Client-IP", "@", "X-Client-IP: evil\r\n\r\n", Dropped),
    ("True-Client-IP", "@", "True-Client-IP: evil\r\n\r\n", Dropped),
    ("a method override", "@", "X-HTTP-Method-Override: EVIL\r\n\r\n", Dropped),
    ("X-HTTP-Method", "@", "X-HTTP-Method: EVIL\r\n\r\n", Dropped),
    ("X-Method-Override", "@", "X-Method-Override: EVIL\r\n\r\n", Dropped),
    ("Proxy, which CGI takes for HTTP_PROXY", "@", "Proxy: http://evil/\r\n\r\n", Dropped),
    ("what only nodes may say", "@", "Meridian-Need-Cursor: evil\r\n\r\n", Dropped),
    ("a part of it", "@", "Range: bytes=0-0, evil\r\n\r\n", Dropped),
    ("a condition", "@", "If-None-Match: \"evil\"\r\n\r\n", Dropped),
    ("If-Range", "@", "Range: bytes=0-1\r\nIf-Range: \"evil\"\r\n\r\n", Dropped),
    ("an unknown coding", "@", "Accept-Encoding: evil\r\n\r\n", Dropped),
    ("a field that ends here", "@", "Connection: x-evil\r\nX-Evil: evil\r\n\r\n", Dropped),
    ("an expectation", "@", "Expect: evil\r\n\r\n", Refused(417)),
    ("Upgrade", "@", "Connection: upgrade\r\nUpgrade: evil\r\n\r\n", Dropped),
    ("a fat GET", "@", "Content-Length: 6\r\n\r\nq=evil", Uncached),
    (
        "a fat GET in chunks",
        "@",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
        Uncached,
    ),
    ("a control in a value (HMC)", "@", "X-Meta: \x07evil\r\n\r\n", Refused(400)),
    ("Host with a port that is none", "@", "", Refused(400)),
];

const TARGETS: &[Attack] = &[
    ("a query", "@?q=evil", HEAD, Keyed),
    ("a parameter twice", "@?q=1&q=evil", HEAD, Keyed),
    ("a semicolon in a query", "@?q=1;q=evil", HEAD, Keyed),
    ("a semicolon behind a parameter that does not count", "@?utm_x=1;q=evil", HEAD, Keyed),
    ("an encoded ampersand", "@?q=1%26q=evil", HEAD, Keyed),
    ("a parameter that does not count", "@?utm_x=evil", HEAD, Dropped),
    ("one that does not count, encoded", "@?%75tm_x=evil", HEAD, Dropped),
    ("another path", "@/evil.css", HEAD, Keyed),
    ("an encoded slash", "@%2Fevil.css", HEAD, Keyed),
    ("a parameter of the path", "@;x=evil.css", HEAD, Keyed),
    ("two slashes", "/@?evil", HEAD, Keyed),
    ("up, encoded", "@/..%2fevil", HEAD, Uncached),
    ("up, all encoded", "@/%2e%2e%2fevil", HEAD, Uncached),
    ("up, encoded twice", "@/%252e%252e%252fevil", HEAD, Uncached),
    ("up, plain: a path of its own", "@/../evil", HEAD, Keyed),
    ("up, with a parameter", "@/..;/evil", HEAD, Uncached),
    ("up, backwards", "@/..\\evil", HEAD, Uncached),
    ("a backslash, encoded", "@%5cevil", HEAD, Uncached),
    ("NUL, encoded", "@%00evil.css", HEAD, Uncached),
    ("a line end, encoded", "@%0d%0aevil:1", HEAD, Uncached),
    ("a fragment", "@#evil", HEAD, Dropped),
    ("absolute form", "http://evil@", HEAD, Dropped),
];

async fn ask(client: &mut RawClient, target: &str, rest: &str) -> Next {
    let host = if rest.is_empty() { "evil:80evil\r\n\r\n" } else { "shop.example\r\n" };
    client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}{rest}").as_bytes()).await;
    client.next().await
}

fn is_clean(answer: &RawAnswer) -> bool {
    let all = format!("{}{}", answer.head, answer.text()).to_ascii_lowercase();
    answer.status == 200 && !all.contains("evil")
}

/// Whether an attack came to what its row says.
fn came_to(verdict: Verdict, attacker: &Next, victim: &Next, heard: usize) -> bool {
    let (Next::Answer(attacker), Next::Answer(victim)) = (attacker, victim) else { return false };
    let is_stored =
        attacker.value("cache-status").is_some_and(|status| status.contains("; stored"));
    let is_as_told = match verdict {
        Refused(status) => attacker.status == status && heard == 0,
        Dropped => is_clean(attacker) && is_stored,
        Keyed => !is_clean(attacker) && is_stored,
        Uncached => !is_clean(attacker) && !is_stored,
    };
    is_as_told && is_clean(victim)
}

async fn table(attacks: &[Attack]) {
    let origin = RawOrigin::start(|request| {
        let shown = format!("{}{}", request.head, String::from_utf8_lossy(&request.body));
        plain("Cache-Control: max-age=60\r\n", &shown)
    })
    .await;
    let edge = EdgeProcess::before(&origin.address(), |edge| {
        edge.site[0].query.drop = vec!["utm_*".to_owned()];
    })
    .await;
    let mut wrong = Vec::new();
    for (number, (what, target, rest, verdict)) in attacks.iter().enumerate() {
        let path = format!("/page{number}x");
        let mut client = RawClient::connect(edge.url()).await;
        let attacker = ask(&mut client, &target.replace('@', &path), rest).await;
        let heard = origin.requests().iter().filter(|r| r.head.contains(&path)).count();
        let mut client = RawClient::connect(edge.url()).await;
        let victim = ask(&mut client, &path, HEAD).await;
        if !came_to(*verdict, &attacker, &victim, heard) {
            wrong.push(format!("{what}: wants {verdict:?}: {attacker:?}\n{victim:?}"));
        }
    }
    wrong.extend(origin.malformed());
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n\n"));
}

#[tokio::test]
async fn what_the_key_does_not_hold_reaches_no_other_client() {
    table(FIELDS).await;
}

#[tokio::test]
async fn what_a_target_says_is_in_the_key_or_not_stored() {
    table(TARGETS).await;
}

#[test]
fn the_judge_sees_a_poisoned_answer() {
    let answer = |text: &str| {
        let head = "HTTP/1.1 200 OK\r\ncache-status: e; fwd=uri-miss; stored\r\n\r\n".to_owned();
        Next::Answer(RawAnswer { status: 200, head, body: text.into() })
    };
    assert!(came_to(Keyed, &answer("Evil"), &answer("sound"), 1));
    assert!(!came_to(Keyed, &answer("Evil"), &answer("Evil"), 1));
    assert!(!came_to(Dropped, &answer("Evil"), &answer("sound"), 1));
    assert!(!came_to(Uncached, &answer("Evil"), &answer("sound"), 1), "it is stored");
}

/// What a careless origin says of a page that is for one client.
const PRIVATE: [&str; 5] = [
    "Cache-Control: private, max-age=60\r\n",
    "Cache-Control: no-store\r\n",
    "Cache-Control: max-age=60\r\nSet-Cookie: session=secret\r\n",
    "Cache-Control: max-age=60\r\nCDN-Cache-Control: private\r\n",
    "",
];

#[tokio::test]
async fn what_is_for_one_client_is_never_stored_whatever_its_path_looks_like() {
    let origin = RawOrigin::start(|request| {
        let number =
            request.target().split(['/', '?']).nth(2).and_then(|n| n.parse::<usize>().ok());
        let fields = number.and_then(|number| PRIVATE.get(number)).copied().unwrap_or_default();
        plain(fields, &format!("for {}", request.values("cookie").join(",")))
    })
    .await;
    let edge = EdgeProcess::before(&origin.address(), |_| {}).await;
    let tails = [
        "",
        "/x.css",
        "%2Fx.css",
        ";x.css",
        "/..%2fstatic/x.css",
        "%00.css",
        "//x.js",
        "/%2e%2e/x.png",
        "?x=.css",
        "%3Fx.css",
        "%23x.css",
        "/.css",
        "\\x.css",
        "%0ax.css",
    ];
    for number in 0..PRIVATE.len() {
        for tail in tails {
            let target = format!("/account/{number}{tail}");
            let mut victim = RawClient::connect(edge.url()).await;
            let next = ask(&mut victim, &target, "Cookie: secret\r\n\r\n").await;
            let Next::Answer(answer) = next else { panic!("{target}: {next:?}") };
            assert_eq!(answer.text(), "for secret", "{target}: {}", answer.head);
            let mut attacker = RawClient::connect(edge.url()).await;
            let next = ask(&mut attacker, &target, HEAD).await;
            let Next::Answer(answer) = next else { panic!("{target}: {next:?}") };
            assert_eq!(answer.text(), "for ", "{target}: {}", answer.head);
        }
    }
}

#[tokio::test]
async fn an_error_that_a_clients_own_fields_provoke_is_not_handed_to_others() {
    // An origin with smaller limits than the edge, that lets its errors be kept.
    let origin = RawOrigin::start(|request| {
        let status = request.values("x-provoke").first().map(|status| (*status).to_owned());
        let too_large = (request.head.len() > 8192).then(|| "431".to_owned());
        match status.or(too_large) {
            Some(status) => keep(format!(
                "HTTP/1.1 {status} No\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\nevil"
            )),
            None => plain("Cache-Control: max-age=60\r\n", "sound"),
        }
    })
    .await;
    let edge = EdgeProcess::before(&origin.address(), |_| {}).await;
    let provoking =
        ["400", "408", "411", "413", "415", "416", "417", "421", "426", "428", "429", "431"];
    let large = format!("X-Large: {}\r\n\r\n", "y".repeat(10_000));
    let fields = provoking.map(|status| format!("X-Provoke: {status}\r\n\r\n"));
    for (number, fields) in fields.iter().chain([&large]).enumerate() {
        let mut attacker = RawClient::connect(edge.url()).await;
        let path = format!("/{number}");
        let next = ask(&mut attacker, &path, fields).await;
        let Next::Answer(answer) = next else { panic!("{next:?}") };
        assert_eq!(answer.text(), "evil", "the attacker gets what it provoked");
        let mut victim = RawClient::connect(edge.url()).await;
        let next = ask(&mut victim, &path, HEAD).await;
        let Next::Answer(answer) = next else { panic!("{next:?}") };
        assert_eq!((answer.status, answer.text().as_str()), (200, "sound"), "{fields:.40}");
    }
}

#[tokio::test]
async fn an_answer_that_names_an_origin_is_only_for_that_origin() {
    let origin = RawOrigin::start(|request| {
        let asked = request.values("origin").first().map(|origin| (*origin).to_owned());
        let allowed = asked.unwrap_or_else(|| "none".to_owned());
        let fields =
            format!("Cache-Control: max-age=60\r\nAccess-Control-Allow-Origin: {allowed}\r\n");
        plain(&fields, "font")
    })
    .await;
    let edge = EdgeProcess::before(&origin.address(), |_| {}).await;
    for (fields, allowed) in [
        ("Origin: http://evil\r\n\r\n", "http://evil"),
        ("Origin: http://shop\r\n\r\n", "http://shop"),
        (HEAD, "none"),
        ("Origin: http://evil\r\n\r\n", "http://evil"),
        ("Origin: http://shop\r\n\r\n", "http://shop"),
    ] {
        let mut client = RawClient::connect(edge.url()).await;
        let next = ask(&mut client, "/font", fields).await;
        let Next::Answer(answer) = next else { panic!("{next:?}") };
        assert_eq!(answer.value("access-control-allow-origin"), Some(allowed), "{}", answer.head);
    }
    assert_eq!(origin.requests().len(), 3, "each origin has a variant of its own");
}
