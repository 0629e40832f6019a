//! For tests: what a chooser finds, and what it is to find instead, as another one did.

use std::collections::VecDeque;

use super::{Chooser, Selection};

/// Call by call.
#[derive(Debug, Default)]
pub(in crate::engine) struct Following {
    /// What it found itself.
    pub(in crate::engine) found: Vec<Selection>,
    /// What it returns instead, the next one first.
    pub(in crate::engine) led: VecDeque<Selection>,
}

impl Following {
    fn pass(&mut self, found: Selection) -> Selection {
        self.found.push(found);
        self.led.pop_front().unwrap_or(found)
    }
}

impl Chooser {
    /// Notes from now on what this chooser and its shadow find.
    pub(in crate::engine) fn follow(&mut self) {
        self.following = Some(Following::default());
        if let Some(shadow) = &mut self.shadow {
            shadow.chooser_mut().follow();
        }
    }

    pub(in crate::engine) fn following(&mut self) -> &mut Following {
        self.following.as_mut().unwrap()
    }

    /// What the shadow has found since last asked.
    pub(in crate::engine) fn shadow_found(&mut self) -> Vec<Selection> {
        let shadow = self.shadow.as_mut().unwrap();
        std::mem::take(&mut shadow.chooser_mut().following().found)
    }

    pub(super) fn note(&mut self, found: Selection) -> Selection {
        let following = self.following.as_mut();
        following.map_or(found, |following| following.pass(found))
    }
}
