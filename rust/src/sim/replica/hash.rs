//! Chained hashes of a text's blocks: equal hashes mean equal text from the very beginning.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Hashes of the whole blocks of the concatenation of `parts`; a partial last block has none.
///
/// `salt` is the root of the chain: what else separates caches (adapter, `cache_salt`). Collisions
/// are as likely as 64 bits make them, and would only make a model's cache hit too much.
#[must_use]
pub fn chain_hashes(salt: &[u8], parts: &[&[u8]], block_bytes: usize) -> Vec<u64> {
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    let mut hashes = Vec::with_capacity(bytes / block_bytes.max(1));
    let mut parent = xxh3_64(salt);
    let mut straddling: Vec<u8> = Vec::new();
    for part in parts {
        let mut rest = *part;
        if !straddling.is_empty() {
            let missing = (block_bytes - straddling.len()).min(rest.len());
            straddling.extend_from_slice(&rest[..missing]);
            rest = &rest[missing..];
            if straddling.len() < block_bytes {
                continue;
            }
            parent = xxh3_64_with_seed(&straddling, parent);
            hashes.push(parent);
            straddling.clear();
        }
        let mut blocks = rest.chunks_exact(block_bytes);
        for block in &mut blocks {
            parent = xxh3_64_with_seed(block, parent);
            hashes.push(parent);
        }
        straddling.extend_from_slice(blocks.remainder());
    }
    hashes
}

#[cfg(test)]
mod tests {
    use super::chain_hashes;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hashes_do_not_depend_on_where_the_text_is_cut(
            text in prop::collection::vec(any::<u8>(), 0..200),
            cuts in (0usize..200, 0usize..200),
            block_bytes in 1usize..40,
        ) {
            let one = cuts.0.min(cuts.1).min(text.len());
            let two = cuts.0.max(cuts.1).min(text.len());
            let whole = chain_hashes(b"s", &[&text], block_bytes);
            let cut = chain_hashes(b"s", &[&text[..one], &text[one..two], &text[two..]], block_bytes);
            prop_assert_eq!(&whole, &cut);
            prop_assert_eq!(whole.len(), text.len() / block_bytes);
        }
    }

    #[test]
    fn a_changed_byte_changes_its_block_and_all_that_follow() {
        let mut text = vec![7u8; 64];
        let before = chain_hashes(b"", &[&text], 16);
        text[20] = 8;
        let after = chain_hashes(b"", &[&text], 16);
        assert_eq!(before[0], after[0]);
        assert!(
            before[1..]
                .iter()
                .zip(&after[1..])
                .all(|(one, other)| one != other)
        );
    }

    #[test]
    fn another_salt_is_another_chain() {
        assert_ne!(
            chain_hashes(b"a", &[&[0; 16]], 16),
            chain_hashes(b"b", &[&[0; 16]], 16)
        );
    }
}
