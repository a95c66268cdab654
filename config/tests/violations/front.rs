//! The rules of the front door.

use meridian_config::control::Front;

use crate::rows::check;

pub(crate) const FRONT: &str = r#"
name = "front-1"
listen = "127.0.0.1:8080"
admin = "127.0.0.1:9080"
replicas = ["control-1"]
peers.control-1 = "127.0.0.1:8090"
"#;

#[test]
fn a_front_door_follows_replicas_that_it_can_reach() {
    check::<Front>(
        FRONT,
        &[
            ("", ""),
            ("poll = '10ms'", ""),
            ("poll = '9ms'", "must be at least 10ms"),
            ("poll = '61s'", "must be at most 1m"),
            ("replicas = []", "must name at least one control replica"),
            ("replicas-", "replicas: is required"),
            (
                "replicas = ['x']",
                "replicas[0] = 'x': has no address in [peers]: add x = 'host:port' there",
            ),
            (
                "admin = '127.0.0.1:8080'",
                "admin = '127.0.0.1:8080': must not be the port of listen = '127.0.0.1:8080'",
            ),
            ("admin = '10.0.0.1:1'", "must be a loopback address as long as there is no [[token]]"),
            ("limits.max_edges = 100001", "must be at most 100000"),
        ],
    );
}

#[test]
fn it_knows_where_its_clients_are() {
    let net = |net: &str| format!("prefix[0].net = '{net}' & prefix[0].from = 'fra'");
    let from = |from: &str| format!("prefix[0].from = '{from}' & prefix[0].net = '::/0'");
    let told = |net: &str, more: &str| {
        format!(
            "prefix[0].net = '{net}': must be a network in CIDR form, such as '192.0.2.0/24' or \
             '2001:db8::/32'{more}"
        )
    };
    let place = "must be a code of the table of places, such as 'fra', or 'lat,lon'";
    check::<Front>(
        FRONT,
        &[
            (&net("0.0.0.0/0"), ""),
            (&net("192.0.2.1/32"), ""),
            (&net("2001:db8::1/128"), ""),
            (&net("192.0.2.0"), &told("192.0.2.0", "")),
            (&net("192.0.2/24"), &told("192.0.2/24", ": invalid IP address syntax")),
            (&net("192.0.2.0/x"), &told("192.0.2.0/x", ": invalid digit found in string")),
            (&net("192.0.2.0/33"), "must have a prefix of at most 32 bits"),
            (&net("2001:db8::/129"), "must have a prefix of at most 128 bits"),
            (&net("192.0.2.1/24"), "must have no bit set after the first 24"),
            (&net("1.0.0.0/0"), "must have no bit set after the first 0"),
            (&from("50.03,8.57"), ""),
            (&from("-90,180"), ""),
            (&from("FRA"), place),
            (&from("91,0"), place),
            (&from("1"), place),
            (
                "prefix = [{ net = '::/0', from = 'fra' }, { net = '::/0', from = 'iad' }]",
                "prefix[1].net = '::/0': is there already, at index 0",
            ),
        ],
    );
}
