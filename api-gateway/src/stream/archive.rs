//! Files as one tar archive, written as they are read.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use events::{JobArtifact, ObjectPlace};
use futures::stream::BoxStream;
use futures::{Stream, TryStreamExt};
use objects::Store;

/// Archives are made of blocks of so many bytes.
const BLOCK: u64 = 512;

/// The archive of these. An object that is gone or damaged breaks it off, so that nobody takes it for whole.
pub fn archive(
    store: Store,
    place: ObjectPlace,
    members: Vec<JobArtifact>,
    modified_unix_seconds: u64,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let state =
        State { store, place, members: members.into(), modified_unix_seconds, open: None, over: false };
    futures::stream::try_unfold(state, |mut state| async move {
        Ok(state.next().await?.map(|bytes| (bytes, state)))
    })
}

struct State {
    store: Store,
    place: ObjectPlace,
    members: VecDeque<JobArtifact>,
    modified_unix_seconds: u64,
    open: Option<Open>,
    over: bool,
}

/// A member that is being sent.
struct Open {
    contents: BoxStream<'static, Result<Bytes, objects::ReadError>>,
    /// How many bytes are still to come.
    left: u64,
    /// How many zeros follow.
    padding: usize,
}

impl State {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(open) = &mut self.open {
            if let Some(bytes) = open.contents.try_next().await.map_err(io::Error::other)? {
                let left = open.left.checked_sub(bytes.len() as u64);
                open.left =
                    left.ok_or_else(|| io::Error::other("an artifact is longer than the record says"))?;
                return Ok(Some(bytes));
            }
            if open.left > 0 {
                return Err(io::Error::other("an artifact is shorter than the record says"));
            }
            let padding = open.padding;
            self.open = None;
            if padding > 0 {
                return Ok(Some(Bytes::from(vec![0; padding])));
            }
        }
        if let Some(member) = self.members.pop_front() {
            let object = self
                .store
                .get(&self.place.key(member.object.sha256), None)
                .await
                .map_err(io::Error::other)?;
            let padding =
                usize::try_from((BLOCK - member.object.size % BLOCK) % BLOCK).map_err(io::Error::other)?;
            self.open = Some(Open { contents: object.contents, left: member.object.size, padding });
            return head(&member, self.modified_unix_seconds).map(Some);
        }
        // Two empty blocks are the end.
        Ok((!std::mem::replace(&mut self.over, true)).then(|| Bytes::from(vec![0; 2 * BLOCK as usize])))
    }
}

/// What stands before the bytes of a file; a long path has entries of its own.
fn head(member: &JobArtifact, modified_unix_seconds: u64) -> io::Result<Bytes> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(member.object.size);
    header.set_mode(member.mode & 0o777);
    header.set_mtime(modified_unix_seconds);
    header.set_uid(0);
    header.set_gid(0);
    let mut head = Vec::new();
    // The bytes follow by themselves, so none are given.
    tar::Builder::new(&mut head).append_data(&mut header, &member.path, io::empty())?;
    // The builder ends the archive when it is dropped.
    head.truncate(head.len() - 2 * BLOCK as usize);
    Ok(head.into())
}
