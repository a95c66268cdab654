//! The front door sends each client to the nearest edge that is healthy and not drained.

use meridian_tests::client::{Client, Reply};
use meridian_tests::cluster::Cluster;
use meridian_tests::wait::{PATIENCE, eventually};

async fn ask(cluster: &Cluster, from: &str) -> Reply {
    let url = format!("{}/style.css?x=1", cluster.file().front);
    Client::get_with(&url, &[("meridian-from", from)]).await
}

#[tokio::test]
async fn a_client_is_sent_to_the_edge_of_its_region() {
    let cluster = Cluster::start(&[]).await;
    for region in ["iad", "fra", "nrt"] {
        let reply = ask(&cluster, region).await;
        assert_eq!(reply.status, 307, "{reply:?}");
        let edge = cluster.edge(region).url;
        assert_eq!(reply.header("location"), Some(format!("{edge}/style.css?x=1").as_str()));
        assert_eq!(reply.header("vary"), Some("*"));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
}

#[tokio::test]
async fn a_place_without_an_edge_is_sent_to_the_nearest_one() {
    let cluster = Cluster::start(&["--regions", "iad,fra,nrt"]).await;
    // London, Osaka and Chicago, by label and by latitude and longitude.
    let rows = [
        ("lhr", "fra"),
        ("51.5,-0.1", "fra"),
        ("kix", "nrt"),
        ("34.7,135.5", "nrt"),
        ("ord", "iad"),
        ("41.9,-87.6", "iad"),
    ];
    for (from, region) in rows {
        let edge = cluster.edge(region).url;
        let header = ask(&cluster, from).await;
        assert_eq!(
            header.header("location"),
            Some(format!("{edge}/style.css?x=1").as_str()),
            "{from}"
        );
        let front = cluster.file().front;
        let query = Client::get(&format!("{front}/?meridian-from={from}")).await;
        let location = query.header("location").unwrap_or_default();
        assert!(location.starts_with(&format!("{edge}/")), "{from}: {location}");
    }
}

#[tokio::test]
async fn a_drained_region_gets_no_new_clients_until_it_is_taken_back() {
    let cluster = Cluster::start(&["--regions", "fra,nrt"]).await;
    let (token, control) = (cluster.token(), cluster.file().controls.first().unwrap().url.clone());
    let intent = format!("{control}/v1/regions/fra/intent");
    for (state, region) in [("drained", "nrt"), ("active", "fra")] {
        let body = format!("{{\"state\":\"{state}\"}}");
        let reply = Client::put_json(&intent, &body, Some(&token)).await;
        assert!(reply.status.is_success(), "{reply:?}");
        let want = format!("{}/style.css?x=1", cluster.edge(region).url);
        eventually(format!("clients of fra are sent to {region}"), PATIENCE, async || {
            let reply = ask(&cluster, "fra").await;
            (reply.header("location") == Some(want.as_str())).then_some(())
        })
        .await;
    }
    // Drained is not dead: whoever goes there is served.
    assert_eq!(Client::get(&format!("{}/", cluster.edge("fra").url)).await.status, 200);
}
