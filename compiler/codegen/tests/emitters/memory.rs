//! Loads, stores and gathers of every type in memory.

use lapidary_codegen::kernel::*;

use crate::rows::*;
use crate::support::{Emitter, LANES, MEMS, Memory, Numbers, agree, agree_in, whole};

/// Instructions before AVX want operands in memory at multiples of 16 bytes; buffers are anywhere.
#[test]
fn vectors_are_read_at_any_address_without_avx() {
    use VCmp::*;
    let mem = Mem::F32;
    let baseline = [Emitter::ClifBaseline];
    for op in [Eq, Ne, Lt, Le, Gt, Ge] {
        for loaded_first in [false, true] {
            let mut r = Rows::new(&format!("{op:?}").to_lowercase(), 4);
            let c = r.vec(Elem::F32);
            let bits = u64::from(0.5f32.to_bits());
            r.push(Inst::VConst { dst: c, bits });
            let x = r.load(0, mem);
            let (a, b) = if loaded_first { (x, c) } else { (c, x) };
            let m = r.mask();
            r.push(Inst::VCmp { op, dst: m, a, b });
            r.store_mask(m);
            let memory = memory(4, mem, mem);
            assert_eq!(agree_in(&baseline, &r.done(), &memory, same(mem)), 1);
        }
    }
    for op in [VBin::Add, VBin::Mul, VBin::Min, VBin::Max, VBin::And] {
        let mut r = Rows::new(&format!("{op:?}").to_lowercase(), 4);
        let a = r.load(0, mem);
        let b = r.load(1, mem);
        let dst = r.vec(Elem::F32);
        r.push(Inst::VBin { op, dst, a, b });
        r.store(dst, mem);
        let memory = memory(4, mem, mem);
        assert_eq!(agree_in(&baseline, &r.done(), &memory, same(mem)), 1);
    }
}

#[test]
fn memory_types_agree() {
    for lanes in LANES {
        for mem in MEMS.into_iter().filter(|m| fits(lanes, m.elem())) {
            let mut r = Rows::new(&format!("load_{mem:?}").to_lowercase(), lanes);
            let v = r.load(0, mem);
            r.store(v, whole(mem.elem()));
            check(&r.done(), &memory(lanes, mem, mem), whole(mem.elem()));

            let mut r = Rows::new(&format!("store_{mem:?}").to_lowercase(), lanes);
            let v = r.load(0, whole(mem.elem()));
            r.store(v, mem);
            let m = memory(lanes, whole(mem.elem()), mem);
            check(&r.done(), &m, mem);

            let mut r = Rows::new(&format!("splat_{mem:?}").to_lowercase(), lanes);
            let addr = r.row(0, mem);
            let v = r.vec(mem.elem());
            r.push(Inst::VSplat {
                dst: v,
                mem,
                addr: addr.with_disp(0),
            });
            r.store(v, whole(mem.elem()));
            check(&r.done(), &memory(lanes, mem, mem), whole(mem.elem()));
        }
    }
}

#[test]
fn masked_memory_stays_within_the_mask() {
    for lanes in LANES {
        for mem in MEMS.into_iter().filter(|m| fits(lanes, m.elem())) {
            // Rows 0..12 have -1, 0, 1, ... lanes on; more than there are for the short ones.
            let mut r = Rows::new(&format!("masked_{mem:?}").to_lowercase(), lanes);
            let (count, mask, v) = (r.gpr(), r.mask(), r.vec(mem.elem()));
            let i = r.i;
            r.push(Inst::GBin {
                op: GOp::Mul,
                dst: count,
                a: i,
                b: Int::Imm(if lanes == 16 { 2 } else { 1 }),
            });
            r.push(Inst::GBin {
                op: GOp::Sub,
                dst: count,
                a: count,
                b: Int::Imm(1),
            });
            r.push(Inst::MCount { dst: mask, count });
            let from = r.row(0, mem);
            r.push(Inst::VLoad {
                dst: v,
                mem,
                addr: from,
                mask: Some(mask),
            });
            r.store(v, whole(mem.elem()));
            check(&r.k_with(), &memory(lanes, mem, mem), whole(mem.elem()));

            let all = r.load(0, mem);
            let to = r.row(2, mem);
            r.push(Inst::VStore {
                src: all,
                mem,
                addr: to,
                mask: Some(mask),
            });
            check(&r.done(), &memory(lanes, mem, mem), mem);
        }
    }
}

#[test]
fn a_masked_load_at_the_end_of_a_page_does_not_fault() {
    for lanes in [8, 16] {
        for mem in [Mem::F32, Mem::U8, Mem::F16, Mem::I32] {
            let mut k = Kernel::new("edge", lanes);
            let (p, q, count) = (k.reg(Class::Gpr), k.reg(Class::Gpr), k.reg(Class::Gpr));
            let (m, v) = (k.reg(Class::Mask), k.reg(Class::Vec(mem.elem())));
            k.body = vec![
                Inst::GLoad {
                    dst: p,
                    mem: Mem::I64,
                    addr: Addr::base(DIMS),
                },
                Inst::GLoad {
                    dst: q,
                    mem: Mem::I64,
                    addr: Addr::base(BUFFERS),
                },
                Inst::GSet {
                    dst: count,
                    src: Int::Imm(3),
                },
                Inst::MCount { dst: m, count },
                Inst::VLoad {
                    dst: v,
                    mem,
                    addr: Addr::base(p),
                    mask: Some(m),
                },
                Inst::VStore {
                    src: v,
                    mem,
                    addr: Addr::base(p),
                    mask: Some(m),
                },
                Inst::VStore {
                    src: v,
                    mem,
                    addr: Addr::base(q),
                    mask: None,
                },
            ];
            // Two pages of a file that has one: touching the second is fatal.
            let path = std::env::temp_dir().join(format!("lapidary-edge-{}", std::process::id()));
            std::fs::write(&path, vec![3u8; 4096]).unwrap();
            let file = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open(&path)
                .unwrap();
            // SAFETY: nobody else knows the file.
            let mut pages = unsafe {
                memmap2::MmapOptions::new()
                    .len(8192)
                    .map_mut(&file)
                    .unwrap()
            };
            std::fs::remove_file(&path).unwrap();
            let end = pages.as_mut_ptr() as i64 + 4096;
            let start = end - 3 * i64::from(mem.bytes());
            let memory = Memory::new(vec![vec![0; 64]], &[start]);
            agree(&k, &memory, |a, b| a.buffers == b.buffers);
            drop(pages);
        }
    }
}

#[test]
fn gathers_agree() {
    for lanes in LANES {
        for mem in MEMS.into_iter().filter(|m| fits(lanes, m.elem())) {
            for index in [Elem::I32, Elem::I64] {
                if !fits(lanes, index) {
                    continue;
                }
                for masked in [false, true] {
                    let name = format!("gather_{mem:?}_{index:?}_{masked}").to_lowercase();
                    let mut r = Rows::new(&name, lanes);
                    let at = r.load(1, whole(index));
                    let mask = r.mask();
                    let count = r.i;
                    r.push(Inst::MCount { dst: mask, count });
                    let base = r.pointers[0];
                    let v = if mem.elem() == index {
                        at
                    } else {
                        r.vec(mem.elem())
                    };
                    r.push(Inst::VGather {
                        dst: v,
                        mem,
                        base,
                        index: at,
                        mask: masked.then_some(mask),
                    });
                    r.store(v, whole(mem.elem()));
                    let n = lanes * ROWS as u32;
                    let mut m = memory(lanes, mem, mem);
                    let mut numbers = Numbers(4);
                    m.buffers[1] = (0..n)
                        .flat_map(|_| {
                            let i = numbers.next() % u64::from(n);
                            i.to_le_bytes()[..index.bytes() as usize].to_vec()
                        })
                        .collect();
                    check(&r.done(), &m, whole(mem.elem()));
                }
            }
        }
    }
}
