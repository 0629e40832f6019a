//! Prefix caches that tenants do not share: whose a request's is, and the salt that separates it.
//!
//! The engine hashes `cache_salt` into the first block of a prompt, and so into the hash of every
//! block behind it. Prompts with different salts share no block. A salt that nobody can guess and no
//! client can choose therefore gives each owner a cache of its own.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of the key that salts are made with.
pub const ISOLATION_KEY_BYTES: usize = 32;

/// Sets salts apart from all else that might be made with the same key.
const LABEL: &[u8] = b"skylb cache_salt v1\n";

/// The block of SHA-256, to which HMAC pads its key with zeros (RFC 2104, 2).
const HASH_BLOCK_BYTES: usize = 64;

/// Whose prefix cache a request uses.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub enum Owner<'a> {
    /// That of all requests with neither tenant nor credential.
    #[default]
    Nobody,
    /// This tenant's.
    Tenant(&'a str),
    /// That of the requests with this credential, whose tenant has no name.
    Credential(&'a [u8]),
}

impl Owner<'_> {
    /// The kind of owner, and its name or credential. No two owners have both in common.
    pub(super) fn parts(&self) -> (u8, &[u8]) {
        match self {
            Self::Nobody => (0, b""),
            Self::Tenant(name) => (1, name.as_bytes()),
            Self::Credential(credential) => (2, credential),
        }
    }
}

impl fmt::Debug for Owner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("Nobody"),
            Self::Tenant(name) => f.debug_tuple("Tenant").field(name).finish(),
            Self::Credential(_) => f.write_str("Credential(..)"),
        }
    }
}

/// The key of all salts, ready for use: each costs two or three blocks of SHA-256.
#[derive(Clone)]
pub struct Isolation(Hmac<Sha256>);

impl Isolation {
    /// `key` is secret, and the same at every balancer in front of the same replicas.
    #[must_use]
    pub fn new(key: &[u8; ISOLATION_KEY_BYTES]) -> Self {
        let mut block = [0; HASH_BLOCK_BYTES];
        block[..ISOLATION_KEY_BYTES].copy_from_slice(key);
        Self(Hmac::new(&block.into()))
    }

    /// The salt of an owner's requests. `client` is the salt that the client asks for: an owner's
    /// prompts with different ones share no cache either.
    #[must_use]
    pub fn salt(&self, owner: Owner<'_>, client: Option<&[u8]>) -> Salt {
        let (kind, name) = owner.parts();
        let mut mac = self.0.clone();
        mac.update(LABEL);
        mac.update(&[kind]);
        // The name's length tells where the client's salt begins; that goes on to the end.
        mac.update(&(name.len() as u64).to_be_bytes());
        mac.update(name);
        match client {
            None => mac.update(&[0]),
            Some(salt) => {
                mac.update(&[1]);
                mac.update(salt);
            }
        }
        Salt(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Isolation(..)")
    }
}

/// What separates one owner's prompts from all others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Salt([u8; 32]);

impl Salt {
    /// For SkyLB's own hashes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// For the engine: base64 in the alphabet for URLs, without padding, 43 characters. vLLM refuses
    /// a salt with `/`, which the common alphabet has.
    #[must_use]
    pub fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; ISOLATION_KEY_BYTES] = *b"0123456789abcdef0123456789abcdef";

    /// Computed with Python: `hmac.digest(key, b"skylb cache_salt v1\n" + kind + length + name +
    /// rest, "sha256")`, in `base64.urlsafe_b64encode` without `=`.
    #[test]
    fn a_salt_is_what_another_implementation_of_hmac_makes() {
        let isolation = Isolation::new(&KEY);
        let text = |owner, client| isolation.salt(owner, client).text();
        assert_eq!(
            text(Owner::Nobody, None),
            "PuGp6M9-y3WPsT9eSPqhuUzddU4ftcxZGZIjeFiynJw"
        );
        assert_eq!(
            text(Owner::Tenant("acme"), None),
            "Sd2-XahvrNbpQzWkZk_K71KATkTcQ5azmu6l7YCe12Q"
        );
        assert_eq!(
            text(Owner::Credential(b"Bearer k"), Some(b"own")),
            "OvydaLmUo1SwFmGUdUb3ug-BIqRhJt3MVFIc7Dz_d3c"
        );
    }

    #[test]
    fn no_two_of_owner_and_client_salt_have_a_salt_in_common() {
        let isolation = Isolation::new(&KEY);
        let owners = [
            Owner::Nobody,
            Owner::Tenant(""),
            Owner::Tenant("a"),
            Owner::Tenant("ab"),
            Owner::Tenant("a\u{1}b"),
            Owner::Credential(b""),
            Owner::Credential(b"a"),
            Owner::Credential(b"ab"),
        ];
        let clients: [Option<&[u8]>; 6] = [
            None,
            Some(b""),
            Some(b"b"),
            Some(b"\x01b"),
            Some(b"a"),
            Some(b"bb"),
        ];
        let mut seen = Vec::new();
        for owner in owners {
            for client in clients {
                let salt = isolation.salt(owner, client);
                assert!(!seen.contains(&salt), "{owner:?} {client:?}");
                assert_eq!(salt, isolation.salt(owner, client));
                seen.push(salt);
            }
        }
        let other = Isolation::new(&[7; ISOLATION_KEY_BYTES]);
        assert!(!seen.contains(&other.salt(Owner::Tenant("a"), None)));
    }

    #[test]
    fn vllm_takes_every_salt() {
        let isolation = Isolation::new(&KEY);
        for number in 0..1_000 {
            let salt = isolation.salt(Owner::Tenant(&format!("tenant {number}")), None);
            let text = salt.text();
            assert_eq!(text.len(), 43);
            let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
            assert!(text.bytes().all(fits), "{text}");
        }
    }

    #[test]
    fn neither_key_nor_credential_nor_salt_is_in_the_debug_form() {
        let isolation = Isolation::new(&KEY);
        let owner = Owner::Credential(b"canary");
        let shown = format!("{isolation:?} {owner:?} {:?}", isolation.salt(owner, None));
        assert_eq!(shown, "Isolation(..) Credential(..) Salt(..)");
    }
}
