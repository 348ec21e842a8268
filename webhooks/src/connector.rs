//! Makes the connections. The address that is checked is the address that is connected to, so no name can be one thing for the
//! check and another for the connection.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use hyper::Uri;
use hyper_util::rt::TokioIo;
use policy::AddressPolicy;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long one address may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many addresses of a name are tried.
const MAX_ADDRESSES: usize = 4;

/// From a host and a port to addresses.
pub type Resolve =
    Arc<dyn Fn(String, u16) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// Connects to permitted addresses only.
#[derive(Clone)]
pub struct Connector {
    addresses: Arc<AddressPolicy>,
    resolve: Resolve,
}

/// Why there is no connection. The texts are shown to the webhook's owner: they do not tell what a name
/// resolves to, nor whether it does.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No host or no port.
    #[error("the URL has no host")]
    NoHost,
    /// The name has no address.
    #[error("the host has no address that may be called")]
    Resolve(#[source] std::io::Error),
    /// All its addresses are ours to protect.
    #[error("the host has no address that may be called")]
    Forbidden,
    /// Nobody answers.
    #[error("cannot connect: {0}")]
    Connect(std::io::ErrorKind),
}

impl Connector {
    /// One that asks the system's resolver.
    pub fn new(addresses: AddressPolicy) -> Self {
        Self::with_resolver(
            addresses,
            Arc::new(|host, port| {
                Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
            }),
        )
    }

    /// One that asks this resolver.
    pub fn with_resolver(addresses: AddressPolicy, resolve: Resolve) -> Self {
        Self { addresses: Arc::new(addresses), resolve }
    }

    async fn connect(self, uri: Uri) -> Result<TcpStream, ConnectError> {
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(ConnectError::NoHost)?;
        let default = if uri.scheme_str() == Some("http") { 80 } else { 443 };
        let port = uri.port_u16().unwrap_or(default);
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let found = match literal {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => (self.resolve)(host.to_owned(), port).await.map_err(ConnectError::Resolve)?,
        };
        let mut last = ConnectError::Forbidden;
        let permitted = found.into_iter().filter(|address| self.addresses.permits(address.ip()));
        for address in permitted.take(MAX_ADDRESSES) {
            match timeout(PATIENCE, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Small requests: a failure costs a little time and nothing else.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => last = ConnectError::Connect(error.kind()),
                Err(_) => last = ConnectError::Connect(std::io::ErrorKind::TimedOut),
            }
        }
        Err(last)
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(uri).await.map(TokioIo::new) })
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn listener() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    fn fixed(addresses: &[&str]) -> Resolve {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Arc::new(move |_, port| {
            let found = addresses.iter().map(|address| SocketAddr::new(*address, port)).collect();
            Box::pin(std::future::ready(Ok(found)))
        })
    }

    async fn connect(allowed: &[&str], found: &[&str], url: &str) -> Result<TcpStream, ConnectError> {
        let policy = AddressPolicy::new(allowed).unwrap();
        Connector::with_resolver(policy, fixed(found)).connect(url.parse().unwrap()).await
    }

    #[tokio::test]
    async fn a_literal_address_is_checked_too_however_it_is_written() {
        let (_listener, port) = listener().await;
        for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0", "[::]"] {
            let refused = connect(&[], &["127.0.0.1"], &format!("http://{host}:{port}/")).await;
            assert!(matches!(refused, Err(ConnectError::Forbidden)), "{host}: {refused:?}");
        }
        // What no parser takes for an address goes to the resolver, and what that says is checked.
        for host in ["localhost", "2130706433", "0x7f.1", "127.1"] {
            let refused = connect(&[], &["127.0.0.1"], &format!("http://{host}:{port}/")).await;
            assert!(matches!(refused, Err(ConnectError::Forbidden)), "{host}: {refused:?}");
        }
        assert!(connect(&["127.0.0.0/8"], &[], &format!("http://127.0.0.1:{port}/")).await.is_ok());
    }

    #[tokio::test]
    async fn of_a_names_addresses_only_the_permitted_are_connected_to() {
        let (listener, port) = listener().await;
        let url = format!("http://both.example:{port}/");
        // Both addresses answer; the first is not permitted.
        let stream = connect(&["127.0.0.2/32"], &["127.0.0.1", "127.0.0.2"], &url).await;
        // Nothing listens on the second: the first was not fallen back to.
        assert!(matches!(stream, Err(ConnectError::Connect(_))), "{stream:?}");
        let stream = connect(&["127.0.0.1/32"], &["10.0.0.1", "127.0.0.1"], &url).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
        let refused = connect(&[], &["10.0.0.1", "169.254.169.254", "::1"], &url).await;
        assert!(matches!(refused, Err(ConnectError::Forbidden)), "{refused:?}");
    }

    #[tokio::test]
    async fn a_name_that_changes_its_address_is_checked_at_each_connection() {
        let (_listener, port) = listener().await;
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let resolve: Resolve = {
            let asked = Arc::clone(&asked);
            Arc::new(move |_, port| {
                let first = asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
                let address: IpAddr = if first { [127, 0, 0, 1] } else { [127, 0, 0, 9] }.into();
                Box::pin(std::future::ready(Ok(vec![SocketAddr::new(address, port)])))
            })
        };
        let policy = AddressPolicy::new(&["127.0.0.1"]).unwrap();
        let connector = Connector::with_resolver(policy, resolve);
        let url: Uri = format!("http://rebind.example:{port}/").parse().unwrap();
        assert!(connector.clone().connect(url.clone()).await.is_ok());
        assert!(matches!(connector.connect(url).await, Err(ConnectError::Forbidden)));
        // Once for each connection: what was checked is what was connected to.
        assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 2);
    }
}
