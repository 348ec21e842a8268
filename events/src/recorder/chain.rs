use std::collections::HashMap;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::{ChainHash, DecodeError, EventStore, Frame, Position, StoreError, TenantId};

/// Events that verification reads at once.
const PAGE: u32 = 256;

/// The link of one event: SHA-256 over the link before it, the position (64 bits), the length of the header (32 bits),
/// the header, and the hash of the stored body if there is one. Numbers are big-endian.
pub fn link(
    previous: &ChainHash,
    position: Position,
    header: &[u8],
    body_hash: Option<&[u8; 32]>,
) -> ChainHash {
    let mut hash = Sha256::new();
    hash.update(previous.0);
    hash.update(position.0.to_be_bytes());
    hash.update((header.len() as u32).to_be_bytes());
    hash.update(header);
    if let Some(body_hash) = body_hash {
        hash.update(body_hash);
    }
    ChainHash(hash.finalize().into())
}

/// What is wrong with a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// An event is not there.
    #[error("the event is missing")]
    Missing,
    /// Its bytes, its place or something before it was changed.
    #[error("the event does not fit its hash")]
    Hash,
    /// It stands in another tenant's chain.
    #[error("the event is filed under another tenant")]
    Tenant,
    /// Its bytes are no event.
    #[error("the event cannot be read")]
    Unreadable,
    /// The newest events of a tenant are not there.
    #[error("the newest events of a tenant are missing")]
    Head,
}

/// Why a log did not verify.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It was changed.
    #[error("position {position}: {fault}")]
    Broken {
        /// The first bad position.
        position: Position,
        /// What is wrong there.
        fault: ChainFault,
    },
    /// It could not be read to its end.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Walks the whole log as it is now and checks that positions are dense and that every event is the one that was
/// chained. Returns the newest position that was checked. A chain shows a change to whoever holds a later link; whoever
/// can rewrite the whole database can also rewrite all links.
pub async fn verify(store: &dyn EventStore) -> Result<Position, VerifyError> {
    let end = store.head().await?.position;
    let mut links: HashMap<TenantId, (Position, ChainHash)> = HashMap::new();
    let mut at = Position::ZERO;
    while at < end {
        let frames = store.read_chained(at, PAGE).await?;
        let broken = |position, fault| Err(VerifyError::Broken { position, fault });
        if frames.is_empty() {
            return broken(at.next(), ChainFault::Missing);
        }
        for chained in frames {
            if chained.position != at.next() {
                return broken(at.next(), ChainFault::Missing);
            }
            at = chained.position;
            let previous = links.get(&chained.tenant).map_or(ChainHash::GENESIS, |(_, link)| *link);
            let body_hash = chained.body_hash.as_ref();
            if link(&previous, at, &chained.header, body_hash) != chained.hash {
                return broken(at, ChainFault::Hash);
            }
            // A body may have been dropped since; one that is there must be what was chained.
            if let Some(body) = &chained.body
                && body_hash != Some(&body.hash())
            {
                return broken(at, ChainFault::Hash);
            }
            let frame = Frame { position: at, header: chained.header, body: Bytes::new(), missing: None };
            match frame.decode() {
                Ok(event) if event.tenant != chained.tenant => return broken(at, ChainFault::Tenant),
                // Written by a newer build; its bytes are what they were.
                Ok(_) | Err(DecodeError::UnknownType(_)) => {}
                Err(DecodeError::Frame(_) | DecodeError::Header(_) | DecodeError::Id(_)) => {
                    return broken(at, ChainFault::Unreadable);
                }
            }
            links.insert(chained.tenant, (at, chained.hash));
        }
    }
    let mut cut_off = None;
    for (tenant, (position, hash)) in &links {
        if store.chain_head(tenant).await? != *hash {
            cut_off = Some(position.next());
        }
    }
    // Unless the log has grown meanwhile, which is no fault.
    if let Some(position) = cut_off
        && store.head().await?.position == end
    {
        return Err(VerifyError::Broken { position, fault: ChainFault::Head });
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Encoding, StoredBody};

    #[test]
    fn the_first_link_is_frozen() {
        let body = StoredBody { encoding: Encoding::Raw, bytes: Bytes::from_static(b"hi") };
        let link = link(&ChainHash::GENESIS, Position(1), b"{}", Some(&body.hash()));
        // sha256(32 zero bytes, 0000000000000001, 00000002, "{}", sha256(00, "hi"))
        assert_eq!(link.to_string(), FIRST_LINK);
    }

    const FIRST_LINK: &str = "83efe3efb3658ca954d550126ee1c7265d7d179f7b36b5aa19d6073966632089";

    proptest! {
        #[test]
        fn a_link_depends_on_everything(
            previous: [u8; 32], position: u64, header: Vec<u8>, body: Vec<u8>, other: u8,
        ) {
            let of = |previous, position, header: &[u8], body_hash: Option<[u8; 32]>| {
                link(&ChainHash(previous), Position(position), header, body_hash.as_ref())
            };
            let hash = |encoding, bytes: &[u8]| {
                Some(StoredBody { encoding, bytes: Bytes::copy_from_slice(bytes) }.hash())
            };
            let body_hash = hash(Encoding::Raw, &body);
            let base = of(previous, position, &header, body_hash);
            let mut changed = previous;
            changed[usize::from(other % 32)] ^= 1;
            prop_assert_ne!(base, of(changed, position, &header, body_hash));
            prop_assert_ne!(base, of(previous, position ^ 1, &header, body_hash));
            prop_assert_ne!(base, of(previous, position, &header, None));
            prop_assert_ne!(base, of(previous, position, &header, hash(Encoding::Zstd, &body)));
            let longer = [&body[..], &[other]].concat();
            prop_assert_ne!(base, of(previous, position, &header, hash(Encoding::Raw, &longer)));
            // Moving a byte from one side to the other is a change too.
            let joined = [&header[..], &body_hash.unwrap_or_default()].concat();
            prop_assert_ne!(base, of(previous, position, &joined, None));
        }
    }
}
