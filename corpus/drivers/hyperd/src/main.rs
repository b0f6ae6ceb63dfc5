//! A small HTTP server on hyper, with four worker threads.
//!
//!     hyperd PORT
//!
//! `GET /` says hello, `GET /count` counts, `POST /echo` sends the body back.

use std::convert::Infallible;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::service::{make_service_fn, service_fn};
use hyper::{Body, Method, Request, Response, Server, StatusCode};

static REQUESTS: AtomicU64 = AtomicU64::new(0);

fn answer(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
}

async fn handle(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let number = REQUESTS.fetch_add(1, Ordering::Relaxed);
    Ok(match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => answer(StatusCode::OK, "hello\n"),
        (&Method::GET, "/count") => answer(StatusCode::OK, format!("{number}\n")),
        (&Method::POST, "/echo") => match hyper::body::to_bytes(request.into_body()).await {
            Ok(body) => answer(StatusCode::OK, body),
            Err(error) => answer(StatusCode::BAD_REQUEST, format!("{error}\n")),
        },
        _ => answer(StatusCode::NOT_FOUND, Body::empty()),
    })
}

#[tokio::main(worker_threads = 4)]
async fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::args()
        .nth(1)
        .ok_or("usage: hyperd PORT")?
        .parse()?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let service = make_service_fn(|_| async { Ok::<_, Infallible>(service_fn(handle)) });
    Server::bind(&address).serve(service).await?;
    Ok(())
}
