//! The register tile of a matrix product, written in kernel IR: right, and (on request) how fast.

mod support;

use lapidary_codegen::kernel::*;
use lapidary_codegen::x64::{self, Isa};
use std::time::Instant;
use support::{Emitter, Mapped, Memory, Numbers, agree, bytes_of_f32, f32_of_bytes};

const K: i64 = 768;

/// `c[m][n] += a[k][m] * b[k][n]` over packed panels; `n` in vectors.
fn tile(lanes: u32, m: u32, vectors: u32, unroll: u32) -> Kernel {
    let mut k = Kernel::new(format!("gemm_{m}x{}", vectors * lanes), lanes);
    let [a, b, c, depth, i] = [0; 5].map(|_| k.reg(Class::Gpr));
    let f32s = Class::Vec(Elem::F32);
    let acc: Vec<Reg> = (0..m * vectors).map(|_| k.reg(f32s)).collect();
    let bs: Vec<Reg> = (0..vectors).map(|_| k.reg(f32s)).collect();
    let x = k.reg(f32s);
    let width = lanes * 4;
    for (n, &p) in [a, b, c].iter().enumerate() {
        k.body.push(Inst::GLoad {
            dst: p,
            mem: Mem::I64,
            addr: Addr::base(BUFFERS).with_disp(8 * n as i32),
        });
    }
    k.body.push(Inst::GLoad {
        dst: depth,
        mem: Mem::I64,
        addr: Addr::base(DIMS),
    });
    for &r in &acc {
        k.body.push(Inst::VConst { dst: r, bits: 0 });
    }
    let mut body = Vec::new();
    for u in 0..unroll {
        for (v, &dst) in bs.iter().enumerate() {
            let disp = (u * vectors * width + v as u32 * width) as i32;
            body.push(Inst::VLoad {
                dst,
                mem: Mem::F32,
                addr: Addr::base(b).with_disp(disp),
                mask: None,
            });
        }
        for row in 0..m {
            body.push(Inst::VSplat {
                dst: x,
                mem: Mem::F32,
                addr: Addr::base(a).with_disp(((u * m + row) * 4) as i32),
            });
            for v in 0..vectors {
                let r = acc[(row * vectors + v) as usize];
                body.push(Inst::VFma {
                    dst: r,
                    a: x,
                    b: bs[v as usize],
                    c: r,
                });
            }
        }
    }
    for (p, bytes) in [(a, m * 4), (b, vectors * width)] {
        body.push(Inst::GBin {
            op: GOp::Add,
            dst: p,
            a: p,
            b: Int::Imm(i64::from(bytes * unroll)),
        });
    }
    k.body.push(Inst::Loop {
        var: i,
        from: Int::Imm(0),
        to: depth.into(),
        step: i64::from(unroll),
        body,
    });
    for (n, &src) in acc.iter().enumerate() {
        k.body.push(Inst::VStore {
            src,
            mem: Mem::F32,
            addr: Addr::base(c).with_disp((n as u32 * width) as i32),
            mask: None,
        });
    }
    k
}

fn inputs(m: usize, n: usize) -> Memory {
    let mut numbers = Numbers(1);
    let mut row = |len: usize| {
        let v: Vec<f32> = (0..len).map(|_| numbers.f32()).collect();
        bytes_of_f32(&v)
    };
    let depth = K as usize;
    Memory::new(
        vec![row(depth * m), row(depth * n), vec![0; m * n * 4]],
        &[K],
    )
}

/// Each emitter with its lanes and the tile that fills its registers.
fn tiles() -> Vec<(Emitter, u32, u32, u32)> {
    support::emitters()
        .into_iter()
        .map(|e| match e {
            Emitter::X64(Isa::Avx512) => (e, 16, 14, 2),
            Emitter::X64(Isa::Avx2) => (e, 8, 6, 2),
            Emitter::Clif | Emitter::ClifBaseline => (e, 4, 6, 2),
        })
        .collect()
}

#[test]
fn a_register_tile_equals_the_naive_product() {
    for (_, lanes, m, vectors) in tiles() {
        let n = vectors * lanes;
        let kernel = tile(lanes, m, vectors, 4);
        let memory = inputs(m as usize, n as usize);
        let (a, b) = (
            f32_of_bytes(&memory.buffers[0]),
            f32_of_bytes(&memory.buffers[1]),
        );
        let (m, n) = (m as usize, n as usize);
        let close = |found: &Memory| {
            let c = f32_of_bytes(&found.buffers[2]);
            (0..m).all(|i| {
                (0..n).all(|j| {
                    let exact: f64 = (0..K as usize)
                        .map(|k| f64::from(a[k * m + i]) * f64::from(b[k * n + j]))
                        .sum();
                    (f64::from(c[i * n + j]) - exact).abs() < 1e-3
                })
            })
        };
        let ran = agree(&kernel, &memory, |x, y| close(y) && x.buffers == y.buffers);
        assert!(ran >= 1);
    }
}

#[test]
fn a_full_register_tile_does_not_spill() {
    for (isa, lanes, m) in [(Isa::Avx512, 16, 14), (Isa::Avx2, 8, 6)] {
        let code = x64::emit(&tile(lanes, m, 2, 4), isa).unwrap();
        let listing = x64::disassemble(&code.bytes);
        assert!(!listing.contains("(%rsp"), "{listing}");
    }
}

/// Independent chains of fused multiply-add, as many as hide the latency.
fn peak(lanes: u32) -> Kernel {
    let mut k = Kernel::new("peak", lanes);
    let (turns, i, out) = (k.reg(Class::Gpr), k.reg(Class::Gpr), k.reg(Class::Gpr));
    let count = if lanes == 16 { 24 } else { 12 };
    let acc: Vec<Reg> = (0..count).map(|_| k.reg(Class::Vec(Elem::F32))).collect();
    let x = k.reg(Class::Vec(Elem::F32));
    k.body = vec![
        Inst::GLoad {
            dst: turns,
            mem: Mem::I64,
            addr: Addr::base(DIMS),
        },
        Inst::GLoad {
            dst: out,
            mem: Mem::I64,
            addr: Addr::base(BUFFERS),
        },
        Inst::VSplat {
            dst: x,
            mem: Mem::F32,
            addr: Addr::base(out),
        },
    ];
    for &r in &acc {
        k.body.push(Inst::VMove { dst: r, src: x });
    }
    let body = acc
        .iter()
        .map(|&r| Inst::VFma {
            dst: r,
            a: x,
            b: x,
            c: r,
        })
        .collect();
    k.body.push(Inst::Loop {
        var: i,
        from: Int::Imm(0),
        to: turns.into(),
        step: 1,
        body,
    });
    for &src in &acc {
        k.body.push(Inst::VStore {
            src,
            mem: Mem::F32,
            addr: Addr::base(out),
            mask: None,
        });
    }
    k
}

/// Best GFLOP/s of several runs.
fn rate(code: &[u8], memory: &Memory, flops: f64) -> f64 {
    let mapped = Mapped::new(code);
    let mut best = f64::MAX;
    memory.run(|args| {
        for _ in 0..30 {
            let start = Instant::now();
            for _ in 0..200 {
                // SAFETY: the kernels above, with buffers of their sizes.
                unsafe { mapped.call(args) };
            }
            best = best.min(start.elapsed().as_secs_f64() / 200.0);
        }
    });
    flops / best / 1e9
}

#[test]
#[ignore = "prints rates; run with --ignored --nocapture"]
fn how_fast_tiles_are() {
    for (emitter, lanes, m, vectors) in tiles() {
        let kernel = tile(lanes, m, vectors, 4);
        let code = support::code(&kernel, emitter).unwrap();
        let n = vectors * lanes;
        let flops = 2.0 * f64::from(m * n) * K as f64;
        let found = rate(&code, &inputs(m as usize, n as usize), flops);
        let loops = 4096;
        let top = support::code(&peak(lanes), emitter).unwrap();
        let chains = if lanes == 16 { 24.0 } else { 12.0 };
        let most = rate(
            &top,
            &Memory::new(vec![vec![0; 64]], &[loops]),
            2.0 * chains * f64::from(lanes) * loops as f64,
        );
        let mut emit = f64::MAX;
        for _ in 0..50 {
            let start = Instant::now();
            std::hint::black_box(support::code(&kernel, emitter));
            emit = emit.min(start.elapsed().as_secs_f64());
        }
        println!(
            "{emitter:?} {m}x{n}: {found:.1} GFLOP/s, {:.1} % of {most:.1}; {} bytes emitted in {:.0} us",
            100.0 * found / most,
            code.len(),
            emit * 1e6
        );
    }
}
