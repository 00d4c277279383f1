//! The weights file: 64 bytes of header and the blob, written as a stream and hashed on the way.

use crate::CodeOptions;
use crate::blob;
use crate::error::LinkError;
use crate::plan::Plan;
use lapidary_lower::program::Program;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

/// The runtime's content hash (`lap_hash64`), for a stream whose pieces are of any size.
pub(crate) struct Hasher {
    lanes: [u64; 4],
    pending: Vec<u8>,
    bytes: u64,
}

const P: u64 = 0x9e37_79b1_85eb_ca87;
const Q: u64 = 0xc2b2_ae3d_27d4_eb4f;

impl Hasher {
    pub fn new() -> Self {
        Hasher {
            lanes: [P, Q, P ^ Q, P.wrapping_add(Q)],
            pending: Vec::with_capacity(32),
            bytes: 0,
        }
    }
    pub fn write(&mut self, mut data: &[u8]) {
        self.bytes += data.len() as u64;
        if !self.pending.is_empty() {
            let take = data.len().min(32 - self.pending.len());
            let (head, tail) = data.split_at(take);
            self.pending.extend_from_slice(head);
            data = tail;
            if self.pending.len() < 32 {
                return;
            }
            let block = std::mem::take(&mut self.pending);
            self.block(&block);
        }
        let mut blocks = data.chunks_exact(32);
        for block in &mut blocks {
            self.block(block);
        }
        self.pending.extend_from_slice(blocks.remainder());
    }
    fn block(&mut self, block: &[u8]) {
        for (lane, word) in self.lanes.iter_mut().zip(block.chunks_exact(8)) {
            let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
            *lane = (*lane ^ word.wrapping_mul(P))
                .rotate_left(31)
                .wrapping_mul(Q);
        }
    }
    pub fn finish(mut self) -> u64 {
        if !self.pending.is_empty() {
            let mut block = std::mem::take(&mut self.pending);
            block.resize(32, 0);
            self.block(&block);
        }
        let mut hash = self.bytes.wrapping_mul(P);
        for lane in self.lanes {
            hash = (hash ^ lane)
                .rotate_left(27)
                .wrapping_mul(P)
                .wrapping_add(Q);
        }
        hash ^= hash >> 32;
        hash = hash.wrapping_mul(Q);
        hash ^ (hash >> 29)
    }
}

/// Writes the file; returns the hash of the blob.
pub(crate) fn write_file(
    program: &Program,
    plan: &Plan,
    options: &CodeOptions<'_>,
    path: &Path,
) -> Result<u64, LinkError> {
    let failed = |e| LinkError::file("write", path, e);
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).map_err(failed)?);
    file.write_all(&[0; 64]).map_err(failed)?;
    let mut hasher = Hasher::new();
    blob::stream(program, plan, options, |bytes| {
        hasher.write(bytes);
        file.write_all(bytes).map_err(failed)
    })?;
    let hash = hasher.finish();
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    file.write_all(&header(plan.weights.bytes, hash))
        .map_err(failed)?;
    file.flush().map_err(failed)?;
    Ok(hash)
}

fn header(bytes: u64, hash: u64) -> [u8; 64] {
    let mut header = [0; 64];
    header[..8].copy_from_slice(b"LAPIDWTS");
    header[8..12].copy_from_slice(&1u32.to_le_bytes());
    header[16..24].copy_from_slice(&bytes.to_le_bytes());
    header[24..32].copy_from_slice(&hash.to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapidary_runtime::abi;

    #[test]
    fn the_hash_of_a_stream_is_the_runtimes_hash_of_the_whole() {
        let data: Vec<u8> = (0..1000u32).map(|i| (i * 7 + i / 13) as u8).collect();
        for (length, piece) in [
            (0, 1),
            (1, 1),
            (31, 5),
            (64, 64),
            (1000, 1),
            (1000, 33),
            (999, 64),
        ] {
            let mut hasher = Hasher::new();
            data[..length].chunks(piece).for_each(|p| hasher.write(p));
            assert_eq!(
                hasher.finish(),
                abi::weights_hash(&data[..length]),
                "{length} bytes in pieces of {piece}"
            );
        }
    }

    #[test]
    fn the_header_is_the_runtimes() {
        let blob = [7u8; 128];
        let hash = abi::weights_hash(&blob);
        assert_eq!(header(128, hash), abi::weights_file_header(&blob));
    }
}
