use std::io;
use std::net::Ipv4Addr;

use agent::protocol::{FrameError, Reply, TunnelRefusal};
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;

use super::session::{Reader, Writer};

/// Turns the connection into one to a port on the sandbox's loopback.
pub async fn serve(port: u16, reader: Reader, mut writer: Writer) -> Result<(), FrameError> {
    let mut target = match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Ok(target) => target,
        Err(error) => {
            let refusal = if error.kind() == io::ErrorKind::ConnectionRefused {
                TunnelRefusal::ConnectionRefused { port }
            } else {
                TunnelRefusal::Other { port, message: error.to_string() }
            };
            writer.send(&Reply::Refused(refusal.into())).await?;
            return writer.flush().await;
        }
    };
    let _ = target.set_nodelay(true);
    writer.send(&Reply::Connected).await?;
    writer.flush().await?;
    let (read, early) = reader.into_parts();
    target.write_all(&early).await?;
    let Ok(mut caller) = read.reunite(writer.into_inner()) else {
        return Ok(());
    };
    copy_bidirectional(&mut caller, &mut target).await?;
    Ok(())
}
