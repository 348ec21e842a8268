//! A hostile agent, and the client that an executor calls it with: whatever it answers, a call ends with its bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use agent::client::{Client, Connect, ConnectFuture, Connection, WriteFile};
use agent::protocol::{Attach, ExecId, Hello, PROTOCOL_VERSION};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// More than any call may keep of an answer of this length.
const MOST: usize = 16;

/// The first byte says which call it is, and whether the agent says a good hello first; the rest is what it answers.
pub fn agent_calls(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    let mut said = BytesMut::new();
    if kind & 0x80 == 0 {
        assert!(Hello::ours().encode(PROTOCOL_VERSION, &mut said).is_ok());
    }
    said.extend_from_slice(bytes);
    let client = Client::with(Agent(said.freeze()));
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
    let kept = runtime.block_on(call(&client, kind & 0x7f));
    assert!(kept <= bytes.len() * MOST + 1024, "{kept} bytes of an answer of {} bytes", bytes.len());
}

/// How many bytes, about, the caller holds afterwards.
async fn call(client: &Client, kind: u8) -> usize {
    let exec_id = ExecId([7; 16]);
    match kind % 10 {
        0 => client.list_execs().await.map_or(0, |execs| execs.len() * 64),
        1 => client.stats().await.map_or(0, |_| 64),
        2 => client.list("/", true).await.map_or(0, |(entries, _)| entries.len()),
        3 => client.glob("**").await.map_or(0, |(paths, _)| paths.iter().map(String::len).sum()),
        4 => client.stat("/a").await.map_or(0, |entry| entry.name.len()),
        5 => match client.read_file("/a", 0, None).await {
            Ok(download) => download.collect(1 << 20).await.ok().flatten().map_or(0, |bytes| bytes.len()),
            Err(_) => 0,
        },
        6 => {
            let attach = Attach { exec_id, stdout_offset: 0, stderr_offset: 0 };
            let Ok(mut exec) = client.attach_exec(attach).await else { return 0 };
            let mut events = 0;
            while let Ok(Some(_)) = exec.next().await {
                events += 1;
            }
            events
        }
        7 => {
            let secrets = client.secrets(Some(exec_id), vec!["A".to_owned()]).await;
            secrets.map_or(0, |values| values.iter().map(String::len).sum())
        }
        8 => client.put_file(WriteFile::new("/a"), Bytes::from_static(b"x")).await.map_or(0, |_| 8),
        _ => client.ping().await.map_or(0, |()| 0),
    }
}

/// Says its bytes and then nothing any more; takes whatever it is told.
struct Agent(Bytes);

impl Connect for Agent {
    fn connect(&self) -> ConnectFuture<'_> {
        let said = self.0.clone();
        Box::pin(async move { Ok(Box::new(Answer(said)) as Box<dyn Connection>) })
    }

    fn place(&self) -> String {
        "memory".to_owned()
    }
}

struct Answer(Bytes);

impl AsyncRead for Answer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let next = self.0.len().min(into.remaining());
        into.put_slice(&self.0.split_to(next));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Answer {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
