//! What a tenant has used, by model.

use serde::{Deserialize, Serialize};

/// Models that are counted apart for one tenant, at most.
pub const ROWS_PER_TENANT_MAX: usize = 64;
/// Models that are counted apart for all tenants together, at most.
pub const ROWS_MAX: usize = 16_384;
/// The name under which further models are counted.
const OTHER: &str = "other";
/// The row of further models, which every tenant has.
pub(super) const OTHER_ROW: u32 = 0;

/// Monotonic counts of one model; only what is charged goes down again, where a request used less.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct Figures {
    /// Requests admitted.
    pub(super) requests: u64,
    /// Requests refused by the tenant's terms.
    pub(super) refused: u64,
    pub(super) prompt_tokens: u64,
    pub(super) cached_tokens: u64,
    pub(super) completion_tokens: u64,
    /// What the limit has counted: the prediction of requests that have not ended, and what the others used.
    pub(super) charged_tokens: u64,
}

#[derive(Debug)]
struct Row {
    model: Box<str>,
    figures: Figures,
}

/// One tenant's rows. The first is for further models.
#[derive(Debug)]
pub(super) struct Usage(Vec<Row>);

/// A row as operators see it.
#[derive(Serialize)]
pub(super) struct Seen<'a> {
    model: &'a str,
    #[serde(flatten)]
    figures: Figures,
}

impl Usage {
    pub(super) fn new() -> Self {
        Self(vec![Row {
            model: OTHER.into(),
            figures: Figures::default(),
        }])
    }

    /// Rows beside that of further models.
    pub(super) fn len(&self) -> usize {
        self.0.len() - 1
    }

    /// The row of a model; `room`: another may be added.
    pub(super) fn row(&mut self, model: &str, room: bool) -> u32 {
        let named = self.0.iter().skip(1).position(|row| *row.model == *model);
        let place = match named {
            Some(place) => place + 1,
            None if room && self.len() < ROWS_PER_TENANT_MAX => {
                self.0.push(Row {
                    model: model.into(),
                    figures: Figures::default(),
                });
                self.0.len() - 1
            }
            None => return OTHER_ROW,
        };
        crate::id::count(place)
    }

    pub(super) fn figures(&mut self, row: u32) -> &mut Figures {
        let row = if (row as usize) < self.0.len() {
            row
        } else {
            OTHER_ROW
        };
        &mut self.0[row as usize].figures
    }

    /// All rows: model and figures; the first is that of further models.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, Figures)> {
        self.0.iter().map(|row| (&*row.model, row.figures))
    }

    /// The rows in which something has been counted.
    pub(super) fn seen(&self) -> Vec<Seen<'_>> {
        let used = self
            .0
            .iter()
            .filter(|row| row.figures != Figures::default());
        used.map(|row| Seen {
            model: &row.model,
            figures: row.figures,
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_beyond_the_bound_are_counted_as_one() {
        let mut usage = Usage::new();
        for n in 0..100 {
            let row = usage.row(&format!("m{n}"), true);
            usage.figures(row).requests += 1;
        }
        assert_eq!(usage.len(), ROWS_PER_TENANT_MAX);
        let known = usage.row("m3", false);
        assert_eq!(usage.figures(known).requests, 1);
        let further = usage.row("new", true);
        assert_eq!((further, usage.figures(further).requests), (OTHER_ROW, 36));
        assert_eq!(usage.seen().len(), ROWS_PER_TENANT_MAX + 1);
    }

    #[test]
    fn a_model_that_is_called_like_the_others_is_counted_apart() {
        let mut usage = Usage::new();
        let named = usage.row("other", true);
        assert_ne!(named, OTHER_ROW);
    }
}
