//! HTTP: two pages, on a thread of their own.

use std::{
    convert::Infallible,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Semaphore, oneshot};
use tracing::{debug, warn};

use super::{classic::classic, health::health, page::Page, snapshot::Board};
use crate::privilege;

/// Scrapers at one time; more wait for one to finish.
const CONNECTIONS: usize = 16;
/// Time that a scraper has for its request, and that a connection may be silent. Prometheus asks every 15 s to
/// 1 min on one connection; it opens another when this one is gone.
const SILENCE: Duration = Duration::from_secs(10);
/// After a failed accept, such as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN_METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Serves until it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    /// Dropped, it ends the thread.
    _stop: oneshot::Sender<Infallible>,
}

impl Server {
    /// Listens at an address, and serves what hangs at the board.
    pub fn start(address: SocketAddr, board: Board) -> Result<Self> {
        let busy = || {
            format!(
                "cannot serve metrics at {address}: choose another address by --metrics if this one is \
                 not this host's, or another program (another agent?) has it"
            )
        };
        let listener = TcpListener::bind(address).with_context(busy)?;
        listener.set_nonblocking(true).with_context(busy)?;
        let address = listener.local_addr().with_context(busy)?;
        let (stop, stopped) = oneshot::channel();
        thread::Builder::new()
            .name("metrics".into())
            .spawn(move || {
                privilege::renounce();
                if let Err(error) = serve(listener, board, stopped) {
                    warn!("metrics are not served: {error:#}");
                }
            })
            .context("cannot start the thread for metrics")?;
        Ok(Self { address, _stop: stop })
    }

    /// Where it listens: with port 0 asked for, the one that was free.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn serve(
    listener: TcpListener,
    board: Board,
    stopped: oneshot::Receiver<Infallible>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tokio::select! {
            () = accept(listener, board) => {}
            _ = stopped => {}
        }
        Ok(())
    })
}

async fn accept(listener: tokio::net::TcpListener, board: Board) {
    let pages = Arc::new(Pages { page: Page::new(board.clone()), board });
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let pages = Arc::clone(&pages);
                let service = service_fn(move |request| {
                    let pages = Arc::clone(&pages);
                    async move { Ok::<_, Infallible>(pages.answer(&request)) }
                });
                let mut http = http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(SILENCE);
                let connection = http.serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        debug!(%peer, "metrics: {error}");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                debug!("metrics: cannot accept a connection: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

struct Pages {
    page: Page,
    board: Board,
}

impl Pages {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let reading = [Method::GET, Method::HEAD].contains(request.method());
        match request.uri().path() {
            "/metrics" | "/healthz" | "/" if !reading => {
                let said = "GET or HEAD, nothing else\n".to_owned();
                let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, said);
                refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                refused
            }
            "/metrics" => self.metrics(request),
            "/healthz" => match health(self.board.latest().as_deref(), Instant::now()) {
                Ok(said) => response(StatusCode::OK, PLAIN, said + "\n"),
                Err(said) => response(StatusCode::SERVICE_UNAVAILABLE, PLAIN, said + "\n"),
            },
            "/" => response(StatusCode::OK, PLAIN, "feature-agent: /metrics, /healthz\n".into()),
            _ => {
                let said = "there is /metrics and /healthz\n".to_owned();
                response(StatusCode::NOT_FOUND, PLAIN, said)
            }
        }
    }

    fn metrics(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let Ok(text) = self.page.text() else {
            let said = "the metrics cannot be written\n".to_owned();
            return response(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, said);
        };
        let accepts = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
        if accepts.is_some_and(|accept| accept.contains("openmetrics")) {
            response(StatusCode::OK, OPEN_METRICS, text)
        } else {
            response(StatusCode::OK, PLAIN_METRICS, classic(&text))
        }
    }
}

fn response(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
