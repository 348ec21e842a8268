use agent::protocol::{FileErrorKind, FileRefusal, FrameError, Reply};

use super::Agent;
use super::session::{Reader, Writer};

pub struct Write {
    pub path: String,
    pub mode: u32,
    pub size_hint: Option<u64>,
    pub sync: bool,
}
fn no(path: &str) -> Reply {
    Reply::Refused(
        FileRefusal {
            kind: FileErrorKind::Other,
            path: path.to_owned(),
            message: "not built".into(),
        }
        .into(),
    )
}
pub async fn read(
    _: &Agent,
    path: String,
    _o: u64,
    _l: Option<u64>,
    w: &mut Writer,
) -> Result<(), FrameError> {
    w.send(&no(&path)).await?;
    w.flush().await
}
pub async fn write(_: &Agent, wr: Write, _r: &mut Reader, w: &mut Writer) -> Result<(), FrameError> {
    w.send(&no(&wr.path)).await?;
    w.flush().await
}
pub async fn list(_: &Agent, path: String, _r: bool, w: &mut Writer) -> Result<(), FrameError> {
    w.send(&no(&path)).await?;
    w.flush().await
}
pub async fn glob(_: &Agent, path: String, w: &mut Writer) -> Result<(), FrameError> {
    w.send(&no(&path)).await?;
    w.flush().await
}
pub async fn stat(_: &Agent, path: String) -> Reply {
    no(&path)
}
pub async fn delete(_: &Agent, path: String, _r: bool) -> Reply {
    no(&path)
}
pub async fn move_path(_: &Agent, path: String, _to: String) -> Reply {
    no(&path)
}
pub async fn chmod(_: &Agent, path: String, _m: u32) -> Reply {
    no(&path)
}
pub async fn mkdir(_: &Agent, path: String, _m: u32) -> Reply {
    no(&path)
}
