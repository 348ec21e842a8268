use events::{ChainHash, Position};
use sha2::{Digest, Sha256};

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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use record::{Encoding, StoredBody};

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
