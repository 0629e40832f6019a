//! Values of labels that clients choose: bounded, and the rest `other`.

use hashbrown::HashMap;

use super::ended::Ended;
use crate::prompt::class::{CLASSES, Class};
use crate::tenant::Tenant;

/// Label of values beyond the bound, and of series beyond theirs.
pub const OTHER: &str = "other";

/// Longest name that may be a label, in bytes.
const LABEL_BYTES_MAX: usize = 256;

/// Number of the label of those that name nothing.
pub(super) const NONE_ID: u16 = 0;
/// Number of the label of the rest.
pub(super) const OTHER_ID: u16 = 1;
/// Labels that are always there: none and other.
const FIXED: usize = 2;

/// Names with numbers.
#[derive(Debug)]
pub(super) struct Names {
    ids: HashMap<Box<str>, u16>,
    by_id: Vec<Box<str>>,
    len_max: usize,
}

impl Names {
    /// `names_max`: distinct names that get a label of their own.
    fn new(names_max: usize) -> Self {
        let names_max = names_max.min(usize::from(u16::MAX) - FIXED);
        Self {
            ids: HashMap::new(),
            by_id: vec!["".into(), OTHER.into()],
            len_max: names_max + FIXED,
        }
    }

    /// The number of a name. Only where it `may_grow` it gets one that is new.
    fn id(&mut self, name: &str, may_grow: bool) -> u16 {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let known = self.by_id.len();
        let is_other = name == OTHER || name.len() > LABEL_BYTES_MAX || known >= self.len_max;
        let Some(id) = u16::try_from(known).ok().filter(|_| may_grow && !is_other) else {
            return OTHER_ID;
        };
        self.ids.insert(name.into(), id);
        self.by_id.push(name.into());
        id
    }

    /// The name with this number.
    pub(super) fn name(&self, id: u16) -> &str {
        self.by_id.get(usize::from(id)).map_or(OTHER, |name| name)
    }
}

/// Where a request that ended counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub(super) model: u16,
    pub(super) tenant: u16,
    pub(super) class: Class,
}

impl Key {
    /// The number of its model and class together: below [`CLASSES`] times the number of models.
    pub(super) fn by_class(self) -> usize {
        usize::from(self.model) * CLASSES + self.class as usize
    }
}

/// The names of models and tenants.
#[derive(Debug)]
pub(super) struct Labels {
    pub(super) models: Names,
    pub(super) tenants: Names,
}

impl Labels {
    /// `values_max`: distinct values of each label, besides none and other.
    pub(super) fn new(values_max: usize) -> Self {
        Self {
            models: Names::new(values_max),
            tenants: Names::new(values_max),
        }
    }

    /// Where a request counts. Only one that a replica was tried for may bring a new label: clients can
    /// name any model. A tenant that is not known for certain is one of the others.
    pub(super) fn key(&mut self, ended: &Ended<'_>) -> Key {
        let served = ended.life.attempts > 0;
        let model = ended.model();
        Key {
            model: model.map_or(NONE_ID, |name| self.models.id(name, served)),
            tenant: match &ended.life.tenant {
                Tenant::Nobody => NONE_ID,
                Tenant::Named(name) => self.tenants.id(name, served),
                Tenant::Unknown => OTHER_ID,
            },
            class: ended.life.class,
        }
    }

    /// Model and class of a number that [`Key::by_class`] gave.
    pub(super) fn of_class(&self, number: usize) -> (&str, &'static str) {
        let model = u16::try_from(number / CLASSES).unwrap_or(OTHER_ID);
        (self.models.name(model), Class::ALL[number % CLASSES].name())
    }
}

/// The counter at a place, which is made if need be.
pub(super) fn at<T: Default>(counts: &mut Vec<T>, place: usize) -> &mut T {
    if counts.len() <= place {
        counts.resize_with(place + 1, T::default);
    }
    &mut counts[place]
}
