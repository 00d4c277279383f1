//! Register allocation: linear scan over live intervals.
//!
//! Every register gets one place for its whole life: a machine register, or a slot of the stack
//! frame when too many are live at once (those of least weight go first). Some machine registers
//! are held back as temporaries; how many is the caller's choice ([`Reserve`]), so that a kernel that
//! spills nothing and needs no long sequences has nearly the whole file.

use super::Isa;
use super::asm::gpr::*;
use super::live::{Interval, Liveness, Special};
use crate::kernel::{ARGS, Addr, Class, Kernel, Reg};

/// Registers held back as temporaries, and whether a frame pointer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reserve {
    pub vec: usize,
    pub gpr: usize,
    pub frame: bool,
}

/// Where a register lives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Place {
    /// Never accessed.
    None,
    Gpr(u8),
    Vec(u8),
    Mask(u8),
    /// Offset from the stack pointer.
    Slot(i32),
    /// In the pool.
    Constant(u64),
    /// Its reader loads it.
    Folded(Addr, bool),
}

pub(super) struct Plan {
    pub places: Vec<Place>,
    pub reserve: Reserve,
    /// Callee-saved registers in use.
    pub saved: Vec<u8>,
    pub frame_bytes: i32,
    pub spilled_vec: bool,
    pub spilled_gpr: bool,
    /// Constants that got a register: loaded once, at the entry.
    pub preloaded: Vec<(Reg, u8, u64)>,
}

/// Temporaries among the general registers, in the order in which they are held back.
pub(super) const GPR_TEMPS: [u8; 5] = [RAX, R11, R10, R9, R15];
/// Temporaries among the mask registers; the second cannot be a write mask.
pub(super) const MASK_TEMPS: [u8; 2] = [1, 0];
/// Registers of the five arguments.
pub(super) const ARG_REGS: [u8; ARGS as usize] = [RDI, RSI, RDX, RCX, R8];

const GPR_ORDER: [u8; 14] = [
    RDI, RSI, RDX, RCX, R8, R9, R10, R11, RBX, RBP, R14, R15, R12, R13,
];
const SAVED: [u8; 6] = [RBX, RBP, R12, R13, R14, R15];

/// The n-th vector temporary.
pub(super) fn vec_temp(isa: Isa, n: usize) -> u8 {
    match isa {
        Isa::Avx512 => 31 - n as u8,
        Isa::Avx2 => 15 - n as u8,
    }
}

fn vec_count(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => 32,
        Isa::Avx2 => 16,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pool {
    Gpr,
    Vec,
    Mask,
}

/// Occupied stretches of each machine register of one pool.
struct File {
    pool: Pool,
    free: Vec<u8>,
    active: Vec<(u32, Reg, u8)>,
    history: Vec<Vec<(u32, u32)>>,
}

impl File {
    fn new(pool: Pool, order: Vec<u8>) -> Self {
        File {
            pool,
            free: order,
            active: Vec::new(),
            history: vec![Vec::new(); 32],
        }
    }
    fn place(&self, n: u8) -> Place {
        match self.pool {
            Pool::Gpr => Place::Gpr(n),
            Pool::Vec => Place::Vec(n),
            Pool::Mask => Place::Mask(n),
        }
    }
}

pub(super) fn allocate(kernel: &Kernel, isa: Isa, live: &Liveness, reserve: Reserve) -> Plan {
    let n = live.intervals.len();
    let mut places = vec![Place::None; n];
    for (place, special) in places.iter_mut().zip(&live.special) {
        *place = match *special {
            Special::None => Place::None,
            Special::Constant(bits) => Place::Constant(bits),
            Special::Folded(addr, splat) => Place::Folded(addr, splat),
        };
    }
    let pool_of = |r: Reg| match kernel.class(r) {
        Class::Gpr => Pool::Gpr,
        Class::Vec(_) => Pool::Vec,
        Class::Mask if isa == Isa::Avx2 => Pool::Vec,
        Class::Mask => Pool::Mask,
    };
    let gprs = GPR_ORDER
        .iter()
        .copied()
        .filter(|r| {
            !(GPR_TEMPS.iter().take(reserve.gpr).any(|t| t == r) || (reserve.frame && *r == RBP))
        })
        .collect();
    let vecs = (0..vec_count(isa).saturating_sub(reserve.vec) as u8).collect();
    let mut files = [
        File::new(Pool::Gpr, gprs),
        File::new(Pool::Vec, vecs),
        File::new(Pool::Mask, (2..8).collect()),
    ];
    let mut order: Vec<(Reg, Interval)> = live
        .intervals
        .iter()
        .enumerate()
        .filter_map(|(i, iv)| iv.map(|iv| (Reg(i as u32), iv)))
        .collect();
    order.sort_by_key(|(r, i)| (i.start, r.0));
    let mut spilled: Vec<Reg> = Vec::new();
    for (reg, interval) in order {
        let file = match pool_of(reg) {
            Pool::Gpr => &mut files[0],
            Pool::Vec => &mut files[1],
            Pool::Mask => &mut files[2],
        };
        scan(file, reg, interval, live, &mut places, &mut spilled);
    }
    let preloaded = preload(live, &mut files[1], &mut places, spilled.is_empty());
    let mut plan = Plan {
        places,
        reserve,
        saved: SAVED
            .iter()
            .copied()
            .filter(|&s| !files[0].history[s as usize].is_empty())
            .collect(),
        frame_bytes: 0,
        spilled_vec: spilled.iter().any(|&r| pool_of(r) == Pool::Vec),
        spilled_gpr: spilled.iter().any(|&r| pool_of(r) == Pool::Gpr),
        preloaded,
    };
    for t in GPR_TEMPS.iter().take(reserve.gpr) {
        if SAVED.contains(t) {
            plan.saved.push(*t);
        }
    }
    lay_out_frame(isa, &spilled, pool_of, &mut plan);
    plan
}

fn scan(
    file: &mut File,
    reg: Reg,
    interval: Interval,
    live: &Liveness,
    places: &mut [Place],
    spilled: &mut Vec<Reg>,
) {
    let File { free, active, .. } = file;
    active.retain(|&(end, _, machine)| {
        if end < interval.start {
            // Keeps the low numbers in front: their encodings are shorter.
            let at = free.iter().position(|&f| f > machine).unwrap_or(free.len());
            free.insert(at, machine);
            false
        } else {
            true
        }
    });
    let wanted = if file.pool == Pool::Gpr && reg.0 < ARGS {
        ARG_REGS.get(reg.0 as usize).copied()
    } else {
        interval
            .hint
            .and_then(|h| match places.get(h.0 as usize).copied() {
                Some(Place::Gpr(n) | Place::Vec(n) | Place::Mask(n)) => Some(n),
                _ => None,
            })
    };
    let pick = match wanted.and_then(|w| file.free.iter().position(|&f| f == w)) {
        Some(i) => Some(i),
        None if file.pool == Pool::Gpr => pick_gpr(&file.free),
        None => (!file.free.is_empty()).then_some(0),
    };
    let machine = match pick {
        Some(i) => file.free.remove(i),
        None => {
            let weight = |r: Reg| {
                live.intervals
                    .get(r.0 as usize)
                    .copied()
                    .flatten()
                    .map_or(0.0, |i| i.weight)
            };
            let victim = file
                .active
                .iter()
                .enumerate()
                .min_by(|(_, a), (_, b)| weight(a.1).total_cmp(&weight(b.1)).then(b.0.cmp(&a.0)))
                .map(|(i, _)| i);
            match victim {
                Some(i) if weight(file.active[i].1) < interval.weight => {
                    let (_, loser, machine) = file.active.remove(i);
                    spilled.push(loser);
                    file.history[machine as usize].pop();
                    places[loser.0 as usize] = Place::None;
                    machine
                }
                _ => {
                    spilled.push(reg);
                    return;
                }
            }
        }
    };
    places[reg.0 as usize] = file.place(machine);
    file.history[machine as usize].push((interval.start, interval.end));
    file.active.push((interval.end, reg, machine));
}

/// Caller-saved registers first.
fn pick_gpr(free: &[u8]) -> Option<usize> {
    GPR_ORDER
        .iter()
        .find_map(|r| free.iter().position(|f| f == r))
}

/// Gives registers that are free from the entry on to constants used in loops.
fn preload(
    live: &Liveness,
    file: &mut File,
    places: &mut [Place],
    worthwhile: bool,
) -> Vec<(Reg, u8, u64)> {
    let mut preloaded = Vec::new();
    if !worthwhile {
        return preloaded;
    }
    let mut wanted: Vec<(Reg, Interval)> = live
        .constants
        .iter()
        .enumerate()
        .filter_map(|(i, iv)| {
            iv.filter(|iv| iv.weight >= 8.0)
                .map(|iv| (Reg(i as u32), iv))
        })
        .collect();
    wanted.sort_by(|a, b| b.1.weight.total_cmp(&a.1.weight).then(a.0.cmp(&b.0)));
    let machines: Vec<u8> = file
        .free
        .iter()
        .copied()
        .chain(file.active.iter().map(|a| a.2))
        .collect();
    for (reg, interval) in wanted {
        let Some(Place::Constant(bits)) = places.get(reg.0 as usize).copied() else {
            continue;
        };
        let free = machines.iter().copied().find(|&m| {
            file.history[m as usize]
                .iter()
                .all(|&(start, _)| start > interval.end)
        });
        let Some(machine) = free else { continue };
        file.history[machine as usize].push((0, interval.end));
        places[reg.0 as usize] = Place::Vec(machine);
        preloaded.push((reg, machine, bits));
    }
    preloaded
}

fn lay_out_frame(isa: Isa, spilled: &[Reg], pool_of: impl Fn(Reg) -> Pool, plan: &mut Plan) {
    let vec_bytes = match isa {
        Isa::Avx512 => 64,
        Isa::Avx2 => 32,
    };
    let mut offset = 0;
    for &r in spilled.iter().filter(|&&r| pool_of(r) == Pool::Vec) {
        plan.places[r.0 as usize] = Place::Slot(offset);
        offset += vec_bytes;
    }
    for &r in spilled.iter().filter(|&&r| pool_of(r) != Pool::Vec) {
        plan.places[r.0 as usize] = Place::Slot(offset);
        offset += 8;
    }
    plan.frame_bytes = (offset + 63) & !63;
}
