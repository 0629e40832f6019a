//! The tenant of a request.

use serde::{Deserialize, Serialize};

/// The tenant of a request: whom a key file, a trusted proxy or a forward names.
///
/// `N` is the name, owned or borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Tenant<N> {
    /// No tenant's.
    #[default]
    Nobody,
    /// This tenant's.
    Named(N),
    /// Perhaps a tenant's: it names one that cannot be believed, or brings a key that is not listed.
    Unknown,
}

impl<N: AsRef<str>> Tenant<N> {
    /// The same with a borrowed name.
    pub fn borrowed(&self) -> Tenant<&str> {
        match self {
            Self::Nobody => Tenant::Nobody,
            Self::Named(name) => Tenant::Named(name.as_ref()),
            Self::Unknown => Tenant::Unknown,
        }
    }

    /// Its name, where it has one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Named(name) => Some(name.as_ref()),
            Self::Nobody | Self::Unknown => None,
        }
    }
}

impl Tenant<&str> {
    /// The same with a name of its own.
    #[must_use]
    pub fn owned(&self) -> Tenant<Box<str>> {
        match self {
            Self::Nobody => Tenant::Nobody,
            Self::Named(name) => Tenant::Named((*name).into()),
            Self::Unknown => Tenant::Unknown,
        }
    }
}
