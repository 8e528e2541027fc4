//! See `crate::model`.

use super::Told;
use crate::model::Names;

impl Told {
    pub(crate) fn rename(&mut self, names: Names<'_>) {
        self.leader = self.leader.map(names);
    }
}
