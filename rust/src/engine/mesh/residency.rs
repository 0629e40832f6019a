//! Where requests may be served: regions by tenant and model. Fails closed.

use std::collections::BTreeMap;
use std::fmt;

use crate::tenant::Tenant;

/// Bits of all regions: a request that no rule names.
pub const ANYWHERE: u64 = u64::MAX;
/// Regions that the rules may name.
pub const REGIONS_MAX: usize = 63;
/// The bit of every region that no rule names: rules do not tell these apart.
const UNNAMED: u64 = 1 << REGIONS_MAX;

/// One rule as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Of which tenant; `None`: everybody's.
    pub tenant: Option<String>,
    /// For which model; `None`: for all.
    pub model: Option<String>,
    /// Where they may be served.
    pub regions: Vec<String>,
}

/// Why rules cannot be taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegionError {
    /// They name more than [`REGIONS_MAX`] regions.
    TooMany,
    /// A rule without regions: it would refuse everything.
    NoRegion,
}

impl fmt::Display for RegionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => {
                write!(f, "residency rules name more than {REGIONS_MAX} regions")
            }
            Self::NoRegion => f.write_str("a residency rule names no region"),
        }
    }
}

impl std::error::Error for RegionError {}

/// The regions that rules have named, each a bit for good: requests remember theirs. However many
/// other regions there are, and however often they change their names, they take no more bits.
#[derive(Debug, Default)]
pub struct Regions(Vec<String>);

impl Regions {
    /// The bit of a region.
    #[must_use]
    pub fn bit(&self, name: &str) -> u64 {
        let known = self.0.iter().position(|other| other == name);
        known.map_or(UNNAMED, |position| 1 << position)
    }

    /// A rule names a region: it has a bit of its own from now on.
    fn name(&mut self, name: &str) -> Result<u64, RegionError> {
        if self.bit(name) == UNNAMED {
            if self.0.len() >= REGIONS_MAX {
                return Err(RegionError::TooMany);
            }
            self.0.push(name.to_owned());
        }
        Ok(self.bit(name))
    }
}

/// For which model (`None`: for all), and the bits of the regions that may serve it.
type Place = (Option<String>, u64);

/// The rules, with regions as bits. A request looks at those of its own tenant only, and at everybody's.
#[derive(Debug, Default)]
pub struct Residency {
    everybodys: Vec<Place>,
    tenants: BTreeMap<String, Vec<Place>>,
}

impl Residency {
    /// Rules in force from now on. Regions' bits may be others afterwards.
    ///
    /// # Errors
    ///
    /// A rule names no region, or there are too many regions.
    pub fn new(rules: Vec<Rule>, regions: &mut Regions) -> Result<Self, RegionError> {
        let mut known = Self::default();
        for rule in rules {
            if rule.regions.is_empty() {
                return Err(RegionError::NoRegion);
            }
            let mut bits = 0;
            for name in &rule.regions {
                bits |= regions.name(name)?;
            }
            let places = match rule.tenant {
                Some(tenant) => known.tenants.entry(tenant).or_default(),
                None => &mut known.everybodys,
            };
            places.push((rule.model, bits));
        }
        Ok(known)
    }

    /// Where a request for this model may be served: where all rules that name it allow it. One whose
    /// tenant is unknown may be anybody's: it keeps to the rules of every tenant.
    #[must_use]
    pub fn allowed(&self, tenant: Tenant<&str>, model: &str) -> u64 {
        let within = |allowed: u64, places: &Vec<Place>| {
            let named = |(of, _): &&Place| of.as_deref().is_none_or(|of| of == model);
            let bits = places.iter().filter(named);
            bits.fold(allowed, |allowed, (_, bits)| allowed & bits)
        };
        let allowed = within(ANYWHERE, &self.everybodys);
        match tenant {
            Tenant::Nobody => allowed,
            Tenant::Named(name) => self
                .tenants
                .get(name)
                .map_or(allowed, |places| within(allowed, places)),
            Tenant::Unknown => self.tenants.values().fold(allowed, within),
        }
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
        let rules = vec![
            rule(Some("a"), None, &["eu", "us"]),
            rule(None, Some("m"), &["us"]),
            rule(Some("b"), Some("m"), &["eu"]),
        ];
        let rules = Residency::new(rules, &mut regions).unwrap();
        let (eu, us) = (regions.bit("eu"), regions.bit("us"));
        assert_eq!(rules.allowed(Tenant::Named("c"), "n"), ANYWHERE);
        assert_eq!(rules.allowed(Tenant::Nobody, "n"), ANYWHERE);
        assert_eq!(rules.allowed(Tenant::Named("a"), "n"), eu | us);
        assert_eq!(rules.allowed(Tenant::Named("a"), "m"), us);
        assert_eq!(
            rules.allowed(Tenant::Named("b"), "m"),
            0,
            "rules that exclude each other"
        );
        assert_eq!(rules.allowed(Tenant::Named("c"), "m"), us);
        assert_eq!(rules.allowed(Tenant::Nobody, "m"), us);
    }

    #[test]
    fn a_request_of_an_unknown_tenant_keeps_to_the_rules_of_every_tenant() {
        let mut regions = Regions::default();
        let rules = vec![
            rule(Some("a"), None, &["eu"]),
            rule(Some("b"), Some("m"), &["us"]),
        ];
        let rules = Residency::new(rules, &mut regions).unwrap();
        let (eu, us) = (regions.bit("eu"), regions.bit("us"));
        assert_eq!(rules.allowed(Tenant::Unknown, "n"), eu);
        assert_eq!(
            rules.allowed(Tenant::Unknown, "m"),
            0,
            "it may be a's or b's"
        );
        assert_eq!(rules.allowed(Tenant::Named("b"), "m"), us);
        assert_eq!(rules.allowed(Tenant::Named("c"), "m"), ANYWHERE);
    }

    #[test]
    fn rules_that_cannot_be_kept_are_refused() {
        let mut regions = Regions::default();
        let none = Residency::new(vec![rule(None, None, &[])], &mut regions);
        assert_eq!(none.unwrap_err(), RegionError::NoRegion);
        let names: Vec<String> = (0..=REGIONS_MAX).map(|n| n.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let most = vec![rule(None, None, &names[..REGIONS_MAX])];
        Residency::new(most, &mut regions).unwrap();
        let more = Residency::new(vec![rule(None, None, &names[REGIONS_MAX..])], &mut regions);
        assert_eq!(more.unwrap_err(), RegionError::TooMany);
    }

    #[test]
    fn regions_that_no_rule_names_are_told_from_those_that_one_does_however_many_there_are() {
        let mut regions = Regions::default();
        Residency::new(vec![rule(None, None, &["eu", "us"])], &mut regions).unwrap();
        let named = regions.bit("eu") | regions.bit("us");
        assert_eq!(named.count_ones(), 2);
        for n in 0..1_000 {
            let other = regions.bit(&format!("region-{n}"));
            assert_eq!((other & named, other.count_ones()), (0, 1));
        }
        Residency::new(vec![rule(None, None, &["asia"])], &mut regions).unwrap();
        assert_eq!(
            regions.bit("eu") | regions.bit("us"),
            named,
            "they keep their bits"
        );
        assert_eq!(regions.bit("asia") & named, 0);
    }
}
