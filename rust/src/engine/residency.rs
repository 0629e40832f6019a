//! Where requests may be served: regions by tenant and model. Fails closed.

use std::fmt;

/// Bits of all regions: a request that no rule names.
pub const ANYWHERE: u64 = u64::MAX;
/// Regions that can be told apart.
pub const REGIONS_MAX: usize = 64;

/// Whose request it is, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Whose<'a> {
    /// No tenant's.
    #[default]
    Nobody,
    /// This tenant's.
    Tenant(&'a str),
    /// Perhaps a tenant's: it names one that cannot be believed, or brings a key that is not listed.
    Unknown,
}

/// One rule as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whose requests; `None`: everybody's.
    pub tenant: Option<String>,
    /// For which model; `None`: for all.
    pub model: Option<String>,
    /// Where they may be served.
    pub regions: Vec<String>,
}

/// Why rules or peers cannot be taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegionError {
    /// More than [`REGIONS_MAX`] regions.
    TooMany,
    /// A rule without regions: it would refuse everything.
    NoRegion,
}

impl fmt::Display for RegionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(f, "more than {REGIONS_MAX} regions"),
            Self::NoRegion => f.write_str("a residency rule names no region"),
        }
    }
}

impl std::error::Error for RegionError {}

/// The regions that have been named, each a bit for good.
#[derive(Debug, Default)]
pub struct Regions(Vec<String>);

impl Regions {
    /// The bit of a region, a new one if need be.
    ///
    /// # Errors
    ///
    /// There are [`REGIONS_MAX`] others.
    pub fn bit(&mut self, name: &str) -> Result<u64, RegionError> {
        let known = self.0.iter().position(|other| other == name);
        let position = match known {
            Some(position) => position,
            None if self.0.len() < REGIONS_MAX => {
                self.0.push(name.to_owned());
                self.0.len() - 1
            }
            None => return Err(RegionError::TooMany),
        };
        Ok(1 << position)
    }
}

/// The rules, with regions as bits.
#[derive(Debug, Default)]
pub struct Residency(Vec<(Rule, u64)>);

impl Residency {
    /// Rules in force from now on.
    ///
    /// # Errors
    ///
    /// A rule names no region, or there are too many regions.
    pub fn new(rules: Vec<Rule>, regions: &mut Regions) -> Result<Self, RegionError> {
        let mut known = Vec::with_capacity(rules.len());
        for rule in rules {
            if rule.regions.is_empty() {
                return Err(RegionError::NoRegion);
            }
            let mut bits = 0;
            for name in &rule.regions {
                bits |= regions.bit(name)?;
            }
            known.push((rule, bits));
        }
        Ok(Self(known))
    }

    /// Where a request for this model may be served: where all rules that name it allow it. One whose
    /// tenant is unknown may be anybody's: it keeps to the rules of every tenant.
    #[must_use]
    pub fn allowed(&self, whose: Whose<'_>, model: &str) -> u64 {
        let named = |rule: &Rule| {
            let theirs = match (rule.tenant.as_deref(), whose) {
                (None, _) | (_, Whose::Unknown) => true,
                (Some(_), Whose::Nobody) => false,
                (Some(named), Whose::Tenant(tenant)) => named == tenant,
            };
            theirs && rule.model.as_deref().is_none_or(|m| m == model)
        };
        let bits = self.0.iter().filter(|(rule, _)| named(rule));
        bits.fold(ANYWHERE, |all, (_, bits)| all & bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(tenant: Option<&str>, model: Option<&str>, regions: &[&str]) -> Rule {
        Rule {
            tenant: tenant.map(str::to_owned),
            model: model.map(str::to_owned),
            regions: regions.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    #[test]
    fn a_request_keeps_to_every_rule_that_names_it() {
        let mut regions = Regions::default();
        let (eu, us) = (regions.bit("eu").unwrap(), regions.bit("us").unwrap());
        let rules = vec![
            rule(Some("a"), None, &["eu", "us"]),
            rule(None, Some("m"), &["us"]),
            rule(Some("b"), Some("m"), &["eu"]),
        ];
        let rules = Residency::new(rules, &mut regions).unwrap();
        assert_eq!(rules.allowed(Whose::Tenant("c"), "n"), ANYWHERE);
        assert_eq!(rules.allowed(Whose::Nobody, "n"), ANYWHERE);
        assert_eq!(rules.allowed(Whose::Tenant("a"), "n"), eu | us);
        assert_eq!(rules.allowed(Whose::Tenant("a"), "m"), us);
        assert_eq!(
            rules.allowed(Whose::Tenant("b"), "m"),
            0,
            "rules that exclude each other"
        );
        assert_eq!(rules.allowed(Whose::Tenant("c"), "m"), us);
        assert_eq!(rules.allowed(Whose::Nobody, "m"), us);
    }

    #[test]
    fn a_request_of_an_unknown_tenant_keeps_to_the_rules_of_every_tenant() {
        let mut regions = Regions::default();
        let (eu, us) = (regions.bit("eu").unwrap(), regions.bit("us").unwrap());
        let rules = vec![
            rule(Some("a"), None, &["eu"]),
            rule(Some("b"), Some("m"), &["us"]),
        ];
        let rules = Residency::new(rules, &mut regions).unwrap();
        assert_eq!(rules.allowed(Whose::Unknown, "n"), eu);
        assert_eq!(
            rules.allowed(Whose::Unknown, "m"),
            0,
            "it may be a's or b's"
        );
        assert_eq!(rules.allowed(Whose::Tenant("b"), "m"), us);
        assert_eq!(rules.allowed(Whose::Tenant("c"), "m"), ANYWHERE);
    }

    #[test]
    fn rules_that_cannot_be_kept_are_refused() {
        let mut regions = Regions::default();
        let none = Residency::new(vec![rule(None, None, &[])], &mut regions);
        assert_eq!(none.unwrap_err(), RegionError::NoRegion);
        for n in 0..REGIONS_MAX {
            assert_eq!(regions.bit(&n.to_string()), Ok(1 << n));
        }
        assert_eq!(regions.bit("0"), Ok(1), "known ones keep theirs");
        assert_eq!(regions.bit("more"), Err(RegionError::TooMany));
    }
}
