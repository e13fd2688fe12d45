//! SHA-256 of many records at once: what the writer's processor time goes to.
//!
//! One hash is a chain of dependent steps, but the hashes of a batch are independent of each
//! other. Where the processor has AVX-512, sixteen of them are computed side by side, one in each
//! 32-bit lane of its registers. Elsewhere, and for the few that are left over, the library's
//! instructions for a single hash are used.

use graven_format::merkle::{Hash, Hashing, OneByOne};
use graven_format::record;

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(test)]
mod tests;

/// The fastest hashing of batches that this processor has.
#[derive(Clone, Copy, Debug)]
pub struct Lanes {
    #[cfg(target_arch = "x86_64")]
    avx512: Option<avx512::Avx512>,
}

impl Lanes {
    /// Finds out what the processor has.
    #[must_use]
    pub fn new() -> Self {
        Self {
            #[cfg(target_arch = "x86_64")]
            avx512: avx512::Avx512::detect(),
        }
    }

    /// What any other processor has: the library's hashing, one by one.
    #[cfg(test)]
    pub(crate) fn one_by_one() -> Self {
        Self {
            #[cfg(target_arch = "x86_64")]
            avx512: None,
        }
    }

    /// How many hashes are computed side by side.
    #[must_use]
    pub fn width(&self) -> usize {
        #[cfg(target_arch = "x86_64")]
        if self.avx512.is_some() {
            return avx512::LANES;
        }
        1
    }
}

impl Default for Lanes {
    fn default() -> Self {
        Self::new()
    }
}

impl Hashing for Lanes {
    fn leaves(&mut self, records: &[u8], out: &mut Vec<Hash>) {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx512) = self.avx512 {
            return avx512.hash_all(0x00, record::split(records), out);
        }
        OneByOne.leaves(records, out);
    }

    fn nodes(&mut self, children: &[Hash], out: &mut Vec<Hash>) {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx512) = self.avx512 {
            let (pairs, _) = children.as_chunks::<2>();
            return avx512.hash_all(0x01, pairs.iter().map(|pair| pair.as_flattened()), out);
        }
        OneByOne.nodes(children, out);
    }
}
