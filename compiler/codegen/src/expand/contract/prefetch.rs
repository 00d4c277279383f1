//! Asking for the next panel of weights while the present one is used.

use super::*;

/// Most tiles of rows over which the reading of the next panel is spread: with more, a panel is used so often that
/// it does not matter how it came into the cache.
const MOST_TILES: i64 = 16;
/// Most lines of the next panel asked for in one trip of the inner loop.
const MOST_HINTS: i64 = 4;
/// Bytes of a line of the cache.
const LINE: i64 = 64;

/// A pointer into the next panel that moves with the inner loop.
pub(super) struct Ahead {
    pub at: Reg,
    /// Lines asked for in each trip, and their distance in bytes.
    pub hints: i64,
    pub pitch: i64,
}

impl Expander<'_> {
    /// How a tile asks for its share of the next panel of weights, which stream from memory: the tiles of a panel's rows
    /// together have asked for all of it when its turn comes. `docs/decisions.md` has the figures.
    pub(super) fn ahead(
        &mut self,
        t: &Tile,
        vectors: i64,
        b_first: &Dim,
        unroll: i64,
    ) -> Result<Option<Ahead>> {
        let c = t.c;
        let streams = matches!(
            self.loops.buffers[c.b.buf.0 as usize].kind,
            BufferKind::Input(_)
        );
        let (Some((width, stride)), Some(depth), true) =
            (&c.b.panel, self.resolve(&c.depth).as_const(), streams)
        else {
            return Ok(None);
        };
        let (panel, own) = (width * 4, vectors * self.lanes() * 4);
        if !self.target.masks || depth < unroll || own % LINE != 0 || panel % own != 0 {
            return Ok(None);
        }
        let Some(bytes) = depth
            .checked_mul(panel)
            .filter(|_| (2..=MOST_TILES).contains(&t.tiles))
        else {
            return Ok(None);
        };
        // A tile narrower than the panel asks for its own columns of the next one.
        let pitch = if own == panel { LINE } else { panel };
        let hints_of_panel = bytes / panel * (own / LINE);
        let trips = depth / unroll * t.tiles;
        let row = bytes / t.rows.max(1) / panel * panel;
        let first = Dim::from(t.i)
            .sub(&c.rows.0)
            .mul(&Dim::Const(row))
            .minimum(&Dim::Const(bytes));
        let base = self.full_pointer(c.b.buf, &b_first.add(stride))?;
        let offset = self.int_reg(&first)?;
        let at = self.out.reg(Class::Gpr);
        self.emit(Inst::GBin {
            op: GOp::Add,
            dst: at,
            a: base,
            b: Int::Reg(offset),
        });
        Ok(Some(Ahead {
            at,
            hints: ((hints_of_panel + trips - 1) / trips).clamp(1, MOST_HINTS),
            pitch,
        }))
    }
}
