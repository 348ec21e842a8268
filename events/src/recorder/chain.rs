use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::{ChainHash, DecodeError, EventStore, Frame, Position, StoreError, TenantId};

/// Events that verification reads at once.
const PAGE: u32 = 256;

/// The link of one event: SHA-256 over the link before it, the position (64 bits), the length of the header (32 bits),
/// header and body. Numbers are big-endian.
pub fn link(previous: &ChainHash, frame: &Frame) -> ChainHash {
    let mut hash = Sha256::new();
    hash.update(previous.0);
    hash.update(frame.position.0.to_be_bytes());
    hash.update((frame.header.len() as u32).to_be_bytes());
    hash.update(&frame.header);
    hash.update(&frame.body);
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
            if chained.frame.position != at.next() {
                return broken(at.next(), ChainFault::Missing);
            }
            at = chained.frame.position;
            let previous = links.get(&chained.tenant).map_or(ChainHash::GENESIS, |(_, link)| *link);
            if link(&previous, &chained.frame) != chained.hash {
                return broken(at, ChainFault::Hash);
            }
            match chained.frame.decode() {
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
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn frame(position: u64, header: &[u8], body: &[u8]) -> Frame {
        Frame {
            position: Position(position),
            header: Bytes::copy_from_slice(header),
            body: Bytes::copy_from_slice(body),
        }
    }

    #[test]
    fn the_first_link_is_frozen() {
        let link = link(&ChainHash::GENESIS, &frame(1, b"{}", b"hi"));
        // sha256(32 zero bytes, 0000000000000001, 00000002, "{}", "hi")
        assert_eq!(link.to_string(), FIRST_LINK);
    }

    const FIRST_LINK: &str = "b48ec236157ea58bb8d8f63de5ddcb53dd0cae8931eee5864a0a50de97fec712";

    proptest! {
        #[test]
        fn a_link_depends_on_everything(
            previous: [u8; 32], position: u64, header: Vec<u8>, body: Vec<u8>, other: u8,
        ) {
            let base = link(&ChainHash(previous), &frame(position, &header, &body));
            let mut changed = previous;
            changed[usize::from(other % 32)] ^= 1;
            prop_assert_ne!(base, link(&ChainHash(changed), &frame(position, &header, &body)));
            prop_assert_ne!(base, link(&ChainHash(previous), &frame(position ^ 1, &header, &body)));
            // Moving a byte from the body to the header is a change too.
            if let Some((first, rest)) = body.split_first() {
                let longer = [&header[..], &[*first]].concat();
                prop_assert_ne!(base, link(&ChainHash(previous), &frame(position, &longer, rest)));
            }
        }
    }
}
