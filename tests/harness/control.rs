//! The control API, as a client with a token uses it.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use serde_json::Value;

use crate::client::{Client, Failure, Reply};
use crate::cluster::Cluster;
use crate::wait::eventually;

/// A control replica and a token of all scopes.
#[derive(Debug, Clone)]
pub struct Control {
    url: String,
    bearer: String,
}

impl Control {
    /// The first control replica of a cluster.
    pub fn of(cluster: &Cluster) -> Self {
        let url = cluster.file().controls.first().unwrap().url.clone();
        Self { url, bearer: format!("Bearer {}", cluster.token()) }
    }

    /// Sends any request, with the token.
    pub async fn send(
        &self,
        method: Method,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Reply, Failure> {
        let mut all = vec![("authorization", self.bearer.as_str())];
        all.extend(headers);
        Client::try_request(method, &format!("{}{target}", self.url), &all, body.into()).await
    }

    /// Orders a purge; `query` is what stands behind the question mark.
    pub async fn try_purge(
        &self,
        order: &Value,
        query: &str,
        key: Option<&str>,
    ) -> Result<Reply, Failure> {
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(key.map(|key| ("idempotency-key", key)));
        self.send(Method::POST, &format!("/v1/purges?{query}"), &headers, order.to_string()).await
    }

    /// Orders a purge that is accepted, and says what was answered.
    pub async fn purge(&self, order: &Value, query: &str) -> Value {
        let reply = self.try_purge(order, query, None).await;
        let reply = reply.unwrap_or_else(|error| panic!("{order}: {error:?}"));
        assert_eq!(reply.status, 202, "{order}: {}", reply.text());
        reply.json()
    }

    /// Orders a purge and waits until every edge has applied it.
    pub async fn purge_everywhere(&self, order: &Value) -> Value {
        let receipt = self.purge(order, "ack=effective&timeout=10s").await;
        let edges = receipt.get("edges").unwrap();
        assert_eq!(edges.get("pending"), Some(&Value::Array(Vec::new())), "{receipt}");
        assert_eq!(edges.get("acked"), edges.get("total"), "{receipt}");
        receipt
    }

    /// Orders many purges, one after the other over one connection.
    pub async fn purge_in_turn(&self, orders: impl IntoIterator<Item = Value>) {
        let mut client = Client::http1(&self.url).await.unwrap();
        for order in orders {
            let request = Request::post("/v1/purges").header("authorization", &self.bearer);
            let request = request.header("content-type", "application/json");
            let reply = client.send(request.body(order.to_string().into()).unwrap()).await;
            assert_eq!(reply.unwrap().status, 202, "{order}");
        }
    }

    /// One purge, and how far it got.
    pub async fn purge_view(&self, id: &str) -> Value {
        let reply = self.send(Method::GET, &format!("/v1/purges/{id}"), &[], "").await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    }

    /// Waits until every registered edge has applied a purge.
    pub async fn applied_everywhere(&self, id: &str, deadline: Duration) {
        eventually(format!("purge {id} is applied everywhere"), deadline, async || {
            let view = self.purge_view(id).await;
            let edges = view.get("edges").unwrap();
            (edges.get("acked") == edges.get("total")).then_some(())
        })
        .await;
    }

    /// All purges, oldest first.
    pub async fn history(&self) -> Vec<Value> {
        let mut all = Vec::new();
        let mut query = String::new();
        loop {
            let target = format!("/v1/purges{query}");
            let page = self.send(Method::GET, &target, &[], "").await.unwrap();
            assert_eq!(page.status, 200, "{}", page.text());
            let page = page.json();
            all.extend(page.get("purges").unwrap().as_array().unwrap().clone());
            match page.get("next").unwrap().as_str() {
                Some(next) => query = format!("?after={next}"),
                None => return all,
            }
        }
    }
}
