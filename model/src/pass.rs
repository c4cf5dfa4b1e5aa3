//! The weights of one pass through the model. Versions that share a base share the products with it, whatever adapters they
//! have: those are added for the rows of each, so that a step of a serving engine reads the base once.

use std::{ops::Range, sync::Arc};

use openclaw_kernels::Backend;

use crate::{adapter::Adapter, base::Base, transformer::Weights};

/// One base, and the adapters of rows.
pub(crate) struct PassWeights<'a, B: Backend> {
    pub base: &'a Base<B>,
    /// Rows that pass through an adapter; those that are in none pass through the base alone.
    pub adapters: Vec<(Range<usize>, &'a Adapter<B>)>,
}

impl<'a, B: Backend> PassWeights<'a, B> {
    /// One version for so many rows.
    pub fn of(weights: &'a Weights<B>, rows: usize) -> Self {
        Self::mixed([(weights, rows)])
    }

    /// Versions of one base, each for so many rows. Neighbours of one version are one product.
    ///
    /// # Panics
    /// When they have different bases, or there is none.
    pub fn mixed(parts: impl IntoIterator<Item = (&'a Weights<B>, usize)>) -> Self {
        let (mut base, mut adapters, mut end) = (None, Vec::<(Range<usize>, &Adapter<B>)>::new(), 0);
        for (weights, rows) in parts {
            let shared = *base.get_or_insert(&weights.base);
            assert!(Arc::ptr_eq(shared, &weights.base), "rows of one pass share a base");
            let start = end;
            end += rows;
            let Some(adapter) = &weights.adapter else { continue };
            match adapters.last_mut() {
                Some((before, same)) if before.end == start && std::ptr::eq(*same, adapter) => {
                    before.end = end
                }
                _ => adapters.push((start..end, adapter)),
            }
        }
        Self { base: base.expect("a pass has rows"), adapters }
    }
}
