//! The bare server that the benchmark compares with: hyper, one thread, constant answers.
//!
//! What it costs is what HTTP itself costs here; what a cache costs beyond that is its own. It is
//! also the origin of the caches: `/N` has N bytes, cacheable for a day. Says its address on
//! stdout and runs until it is killed.

use std::convert::Infallible;
use std::io::Write;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// The largest answer.
const LARGEST: usize = 64 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
    let filler = Bytes::from(vec![b'x'; LARGEST]);
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let filler = filler.clone();
        let service = service_fn(move |request| {
            let answer = answer(&request, &filler);
            async move { Ok::<_, Infallible>(answer) }
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        // How a benchmark's client leaves is its own affair.
        connections.spawn(async { drop(connection.await) });
        while connections.try_join_next().is_some() {}
    }
}

fn answer(request: &Request<Incoming>, filler: &Bytes) -> Response<Full<Bytes>> {
    let size = request.uri().path().strip_prefix('/').and_then(|size| size.parse::<usize>().ok());
    let Some(size) = size.filter(|size| *size <= LARGEST) else {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    let mut response = Response::new(Full::new(filler.slice(..size)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=86400"));
    response
}
