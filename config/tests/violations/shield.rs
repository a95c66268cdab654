//! The rules of `[shield]`.

use meridian_config::edge::Edge;

use crate::edge::EDGE;
use crate::rows::{check, violations};

#[test]
fn a_shield_is_another_edge_that_can_be_reached_and_no_origin() {
    let row = |nodes: &str| format!("shield = {{ nodes = {nodes}, secret_file = 's' }}");
    let base = format!("{EDGE}[[origin]]\nname = \"iad-1\"\n");
    let base = base.replacen("[peers]", "[peers]\niad-1 = \"127.0.0.1:8085\"", 1);
    let bounds = "shield = { secret_file = 's', catch_up = '0s', max_cursors = 16 }";
    check::<Edge>(&base, &[(&row("[]"), ""), (&row("['iad-1']"), ""), (bounds, "")]);
    let taken = "site[0].origins = ['iad-1']";
    let rows = [
        (row("['fra-2']"), "shield.nodes[0] = 'fra-2': names no [[origin]]: add one with"),
        (row("['iad-1', 'iad-1']"), "shield.nodes[1] = 'iad-1': is there already"),
        (row("['fra-1']"), "shield.nodes[0] = 'fra-1': is this edge itself"),
        (row("['iad-1']") + " & " + taken, "shield.nodes[0] = 'iad-1': is an origin of site shop"),
        ("shield = { secret_file = '' }".to_owned(), "shield.secret_file = '': must be a path"),
        (bounds.replace("0s", "11s"), "shield.catch_up = '11s': must be"),
        (bounds.replace("16", "15"), "shield.max_cursors = 15: must be"),
    ];
    for (settings, want) in rows {
        let found = violations::<Edge>(&base, &settings);
        assert!(found.iter().any(|told| told.contains(want)), "{settings}: {found:?}");
    }
}
