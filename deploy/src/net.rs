//! `meridian net`: the links of a running `up`, shown and changed.

use std::fs;

use meridian_tests_chaos::order::{Action, Order};
use meridian_tests_chaos::view::{LinkView, Links, WayView};

use crate::cli::net::{Ends, NetAction, NetArgs, WaysArg};
use crate::client::{Client, ClientError};
use crate::cluster::Cluster;
use crate::error::CommandError;
use crate::output::{Format, write_result};
use crate::run::runtime;
use crate::table::Table;

/// Where links are shown and changed.
const LINKS: &str = "/v1/links";

/// Shows or changes links.
pub(crate) fn net(args: &NetArgs) -> Result<(), CommandError> {
    let cluster = Cluster::read(&args.dir)?;
    let Some(url) = &cluster.net else {
        let text = "the links of this cluster are direct: it was started with --direct";
        return Err(CommandError::Failed(text.to_owned()));
    };
    // Without the token links can still be looked at; changing them is refused with the reason.
    let token = fs::read_to_string(&cluster.token_file).ok();
    let client = Client::new(url, token.map(|token| token.trim().to_owned()))?;
    let links: Links = runtime(1)?.block_on(async {
        match order(&args.action) {
            None => Ok(client.get(LINKS).await?),
            Some(order) => client.post(LINKS, &order).await.map_err(refused),
        }
    })?;
    write_result(&links, Format::of(args.json), text)
}

/// What the command line orders; nothing if it only looks.
fn order(action: &NetAction) -> Option<Order> {
    let between = |action, ends: &Ends| Order::between(action, &ends.a, &ends.b);
    let one_way = |ways: &WaysArg| ways.one_way;
    Some(match action {
        NetAction::Show => return None,
        NetAction::Cut { ends, ways } => {
            Order { one_way: one_way(ways), ..between(Action::Cut, ends) }
        }
        NetAction::Delay { ends, delay, jitter, ways } => Order {
            delay: Some(*delay),
            jitter: *jitter,
            one_way: one_way(ways),
            ..between(Action::Delay, ends)
        },
        NetAction::Rate { ends, rate, ways } => {
            Order { rate: Some(*rate), one_way: one_way(ways), ..between(Action::Rate, ends) }
        }
        NetAction::Slice { ends, size, ways } => {
            Order { slice: Some(*size), one_way: one_way(ways), ..between(Action::Slice, ends) }
        }
        NetAction::Reset { ends } => between(Action::Reset, ends),
        NetAction::HalfClose { ends, ways } => {
            Order { one_way: one_way(ways), ..between(Action::HalfClose, ends) }
        }
        NetAction::Heal { a: Some(a), b: Some(b) } => Order::between(Action::Heal, a, b),
        NetAction::Heal { .. } => Order::heal_all(),
    })
}

/// An order that makes no sense is the command line's fault.
fn refused(error: ClientError) -> CommandError {
    match error {
        ClientError::Refused { code: Some(code), detail, .. }
            if ["unknown_node", "no_link", "bad_request"].contains(&code.as_str()) =>
        {
            CommandError::Usage(detail)
        }
        other => other.into(),
    }
}

fn text(links: &Links) -> String {
    let mut table = Table::default()
        .words("from")
        .words("to")
        .words("there")
        .words("back")
        .numbers("open")
        .numbers("reset")
        .numbers("bytes there")
        .numbers("bytes back")
        .numbers("lost");
    for link in &links.links {
        let LinkView { connections, there, back, .. } = link;
        table.row([
            link.from.to_string(),
            link.to.to_string(),
            behaviour(there),
            behaviour(back),
            connections.open.to_string(),
            connections.reset.to_string(),
            there.bytes.to_string(),
            back.bytes.to_string(),
            (there.lost_bytes + back.lost_bytes).to_string(),
        ]);
    }
    format!(
        "{table}\nthere: what `from`, who dials, sends. back: what is sent to it. \
         -: as it comes.\n"
    )
}

/// How a way behaves, in a few words.
fn behaviour(way: &WayView) -> String {
    if way.is_plain() {
        return "-".to_owned();
    }
    let delay = (!way.delay.get().is_zero()).then(|| format!("+{}", way.delay));
    let jitter = (!way.jitter.get().is_zero()).then(|| format!("jitter {}", way.jitter));
    let rate = way.rate.map(|rate| format!("{rate}/s"));
    let slice = way.slice.map(|slice| format!("slices of {slice}"));
    let words = [way.cut.then(|| "cut".to_owned()), delay, jitter, rate, slice];
    words.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use meridian_config::units::{ByteSize, HumanDuration};
    use meridian_tests_chaos::order::{Action, Order};
    use meridian_tests_chaos::view::WayView;

    use super::{behaviour, order};
    use crate::cli::{Cli, Command};

    fn ordered(line: &str) -> Option<Order> {
        let words = ["meridian", "net"].into_iter().chain(line.split(' '));
        let Command::Net(args) = Cli::try_parse_from(words).unwrap().command else { panic!() };
        order(&args.action)
    }

    #[test]
    fn the_command_line_says_what_is_ordered() {
        let between = |action| Order::between(action, "fra", "origin");
        let rows = [
            ("show --json", None),
            ("cut fra origin", Some(between(Action::Cut))),
            ("cut fra origin --one-way", Some(Order { one_way: true, ..between(Action::Cut) })),
            (
                "delay fra origin 30s --jitter 5s --dir /tmp/x",
                Some(Order {
                    delay: Some(HumanDuration::secs(30)),
                    jitter: Some(HumanDuration::secs(5)),
                    ..between(Action::Delay)
                }),
            ),
            (
                "rate fra origin 1MiB",
                Some(Order { rate: Some(ByteSize::mib(1)), ..between(Action::Rate) }),
            ),
            (
                "slice fra origin 10B",
                Some(Order { slice: Some(ByteSize::bytes(10)), ..between(Action::Slice) }),
            ),
            ("reset fra origin", Some(between(Action::Reset))),
            ("half-close fra origin", Some(between(Action::HalfClose))),
            ("heal fra origin", Some(between(Action::Heal))),
            ("heal", Some(Order::heal_all())),
        ];
        for (line, want) in rows {
            assert_eq!(ordered(line), want, "{line}");
        }
        for line in ["heal fra", "cut fra", "delay fra origin", "reset fra origin --one-way", ""] {
            let words = ["meridian", "net"].into_iter().chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }

    #[test]
    fn behaviour_is_told_in_a_few_words() {
        let plain = WayView {
            cut: false,
            delay: HumanDuration::secs(0),
            jitter: HumanDuration::secs(0),
            rate: None,
            slice: None,
            bytes: 1,
            lost_bytes: 0,
            held_bytes: 0,
        };
        assert_eq!(behaviour(&plain), "-");
        assert_eq!(behaviour(&WayView { cut: true, ..plain }), "cut");
        let slow = WayView {
            delay: HumanDuration::millis(45),
            jitter: HumanDuration::millis(5),
            rate: Some(ByteSize::mib(1)),
            ..plain
        };
        assert_eq!(behaviour(&slow), "+45ms, jitter 5ms, 1MiB/s");
    }
}
