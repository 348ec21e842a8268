//! A client of `WS /execs/{id}/attach`: one byte says the channel, output has its offset behind it.

use anyhow::{Context, bail};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
/// The channel and the offset.
const OUTPUT_HEAD: usize = 1 + 8;

/// An attachment to one exec.
pub struct Attached(WebSocketStream<TcpStream>);

impl Attached {
    /// Attaches from these bytes on. `base` is the server's address with the prefix of the API, without a scheme.
    pub async fn open(base: &str, exec: &str) -> anyhow::Result<Self> {
        let (authority, prefix) = base.split_once('/').context("an address without a path")?;
        let socket = TcpStream::connect(authority).await?;
        socket.set_nodelay(true)?;
        let url = format!("ws://{authority}/{prefix}/execs/{exec}/attach?mode=rw");
        let (socket, _) = tokio_tungstenite::client_async(url, socket).await.context("attach")?;
        Ok(Self(socket))
    }

    /// The next piece of output; `None` at the end.
    pub async fn output(&mut self) -> anyhow::Result<Option<Bytes>> {
        while let Some(message) = self.0.next().await {
            match message? {
                Message::Binary(frame) if matches!(frame.first(), Some(&STDOUT | &STDERR)) => {
                    if frame.len() < OUTPUT_HEAD {
                        bail!("a frame of output is too short");
                    }
                    return Ok(Some(frame.slice(OUTPUT_HEAD..)));
                }
                Message::Close(_) => return Ok(None),
                Message::Binary(_)
                | Message::Text(_)
                | Message::Ping(_)
                | Message::Pong(_)
                | Message::Frame(_) => {}
            }
        }
        Ok(None)
    }

    /// Types.
    pub async fn input(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let frame = [&[STDIN], bytes].concat();
        Ok(self.0.send(Message::Binary(frame.into())).await?)
    }
}
