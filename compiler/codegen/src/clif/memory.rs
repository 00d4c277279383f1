//! Loads and stores, narrow types and masks among them.
//!
//! Halves and bfloat16 are converted by integer arithmetic, for no target has them in CLIF alike.

use super::{Emitter, cast_flags, flags, scalar};
use crate::kernel::{Addr, Elem, Mem, Reg};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{BlockArg, InstBuilder, Value, types};

impl Emitter<'_, '_> {
    pub fn gload(&mut self, dst: Reg, mem: Mem, addr: Addr) {
        let at = self.address(addr);
        let d = addr.disp;
        let ins = self.b.ins();
        let v = match mem {
            Mem::I8 => ins.sload8(types::I64, flags(), at, d),
            Mem::U8 => ins.uload8(types::I64, flags(), at, d),
            Mem::I16 => ins.sload16(types::I64, flags(), at, d),
            Mem::U16 | Mem::F16 | Mem::BF16 => ins.uload16(types::I64, flags(), at, d),
            Mem::I32 => ins.sload32(flags(), at, d),
            Mem::U32 | Mem::F32 => ins.uload32(flags(), at, d),
            Mem::I64 | Mem::F64 => ins.load(types::I64, flags(), at, d),
        };
        self.def(dst, v);
    }

    /// One element, as a scalar of its lane type.
    pub fn load_lane(&mut self, mem: Mem, at: Value, disp: i32) -> Value {
        let ins = self.b.ins();
        match mem {
            Mem::F32 | Mem::F64 | Mem::I32 | Mem::I64 => {
                ins.load(scalar(mem.elem()), flags(), at, disp)
            }
            Mem::I8 => ins.sload8(types::I32, flags(), at, disp),
            Mem::U8 => ins.uload8(types::I32, flags(), at, disp),
            Mem::I16 => ins.sload16(types::I32, flags(), at, disp),
            Mem::U16 => ins.uload16(types::I32, flags(), at, disp),
            Mem::U32 => ins.uload32(flags(), at, disp),
            Mem::F16 => {
                let h = ins.uload16(types::I32, flags(), at, disp);
                self.half_to_single(h)
            }
            Mem::BF16 => {
                let h = ins.uload16(types::I32, flags(), at, disp);
                let bits = self.shl(h, 16);
                self.b.ins().bitcast(types::F32, cast_flags(), bits)
            }
        }
    }

    pub fn store_lane(&mut self, v: Value, mem: Mem, at: Value, disp: i32) {
        match mem {
            Mem::F32 | Mem::F64 | Mem::I32 | Mem::I64 => {
                self.b.ins().store(flags(), v, at, disp);
            }
            Mem::I8 | Mem::U8 => {
                self.b.ins().istore8(flags(), v, at, disp);
            }
            Mem::I16 | Mem::U16 => {
                self.b.ins().istore16(flags(), v, at, disp);
            }
            Mem::U32 => {
                self.b.ins().istore32(flags(), v, at, disp);
            }
            Mem::F16 => {
                let h = self.single_to_half(v);
                self.b.ins().istore16(flags(), h, at, disp);
            }
            Mem::BF16 => {
                let h = self.single_to_bfloat(v);
                self.b.ins().istore16(flags(), h, at, disp);
            }
        }
    }

    fn i32(&mut self, v: i64) -> Value {
        self.b.ins().iconst(types::I32, v)
    }
    fn shl(&mut self, v: Value, by: i64) -> Value {
        let by = self.i32(by);
        self.b.ins().ishl(v, by)
    }
    fn shr(&mut self, v: Value, by: i64) -> Value {
        let by = self.i32(by);
        self.b.ins().ushr(v, by)
    }
    fn and(&mut self, v: Value, mask: i64) -> Value {
        let mask = self.i32(mask);
        self.b.ins().band(v, mask)
    }
    fn add(&mut self, v: Value, to: i64) -> Value {
        let to = self.i32(to);
        self.b.ins().iadd(v, to)
    }
    fn float(&mut self, bits: Value) -> Value {
        self.b.ins().bitcast(types::F32, cast_flags(), bits)
    }
    fn bits(&mut self, float: Value) -> Value {
        self.b.ins().bitcast(types::I32, cast_flags(), float)
    }

    /// IEEE half in the low bits of an `i32`, to `f32`.
    fn half_to_single(&mut self, h: Value) -> Value {
        let sign = self.and(h, 0x8000);
        let sign = self.shl(sign, 16);
        let mag = self.and(h, 0x7fff);
        let shifted = self.shl(mag, 13);
        let normal = self.add(shifted, 112 << 23);
        // Infinity and not-a-number: the exponent is all ones in both.
        let special = self.add(shifted, 224 << 23);
        let quiet = self.i32(0x0040_0000);
        let quieted = self.b.ins().bor(special, quiet);
        let inf = self.i32(0x7c00);
        let is_special = self
            .b
            .ins()
            .icmp(IntCC::UnsignedGreaterThanOrEqual, mag, inf);
        let is_nan = self.b.ins().icmp(IntCC::UnsignedGreaterThan, mag, inf);
        // Small ones: the integer times 2^-24 is exact.
        let count = self.b.ins().fcvt_from_sint(types::F32, mag);
        let unit = self.b.ins().f32const(2f32.powi(-24));
        let small = self.b.ins().fmul(count, unit);
        let small = self.bits(small);
        let least = self.i32(0x400);
        let is_small = self.b.ins().icmp(IntCC::UnsignedLessThan, mag, least);
        let r = self.b.ins().select(is_small, small, normal);
        let r = self.b.ins().select(is_special, special, r);
        let r = self.b.ins().select(is_nan, quieted, r);
        let r = self.b.ins().bor(r, sign);
        self.float(r)
    }

    /// `f32` to IEEE half in the low bits of an `i32`, to nearest even.
    fn single_to_half(&mut self, v: Value) -> Value {
        let bits = self.bits(v);
        let sign = self.shr(bits, 16);
        let sign = self.and(sign, 0x8000);
        let mag = self.and(bits, 0x7fff_ffff);
        // Normal: round at bit 13 and move the exponent.
        let odd = self.shr(mag, 13);
        let odd = self.and(odd, 1);
        let rounded = self.add(mag, 0xfff - 0x3800_0000);
        let rounded = self.b.ins().iadd(rounded, odd);
        let normal = self.shr(rounded, 13);
        // Small: the last place of x + 0.5 is the smallest half.
        let half = self.b.ins().f32const(0.5);
        let x = self.float(mag);
        let sum = self.b.ins().fadd(x, half);
        let sum = self.bits(sum);
        let small = self.add(sum, -0x3f00_0000);
        let payload = self.shr(mag, 13);
        let payload = self.and(payload, 0x3ff);
        let quiet = self.i32(0x7e00);
        let nan = self.b.ins().bor(payload, quiet);
        let inf = self.i32(0x7c00);
        let (least, most, infinite) = (
            self.i32(0x3880_0000),
            self.i32(0x477f_f000),
            self.i32(0x7f80_0000),
        );
        let is_small = self.b.ins().icmp(IntCC::UnsignedLessThan, mag, least);
        let too_large = self
            .b
            .ins()
            .icmp(IntCC::UnsignedGreaterThanOrEqual, mag, most);
        let is_nan = self.b.ins().icmp(IntCC::UnsignedGreaterThan, mag, infinite);
        let r = self.b.ins().select(is_small, small, normal);
        let r = self.b.ins().select(too_large, inf, r);
        let r = self.b.ins().select(is_nan, nan, r);
        self.b.ins().bor(r, sign)
    }

    /// `f32` to bfloat16 in the low bits of an `i32`, to nearest even.
    fn single_to_bfloat(&mut self, v: Value) -> Value {
        let bits = self.bits(v);
        let odd = self.shr(bits, 16);
        let odd = self.and(odd, 1);
        let rounded = self.add(bits, 0x7fff);
        let rounded = self.b.ins().iadd(rounded, odd);
        let quiet = self.i32(0x0040_0000);
        let nan = self.b.ins().bor(bits, quiet);
        let is_nan = self.b.ins().fcmp(FloatCC::Unordered, v, v);
        let r = self.b.ins().select(is_nan, nan, rounded);
        self.shr(r, 16)
    }

    /// Whether a lane of a mask is on: zero or not.
    fn lane_on(&mut self, mask: Reg, lane: u8) -> Value {
        let m = self.get(mask);
        if self.wide() {
            self.b.ins().extractlane(m, lane)
        } else {
            m
        }
    }

    /// Runs `f` if a lane is on; the result is its value, or zero.
    fn if_lane(
        &mut self,
        mask: Option<Reg>,
        lane: u8,
        elem: Elem,
        f: impl FnOnce(&mut Self) -> Value,
    ) -> Value {
        let Some(mask) = mask else { return f(self) };
        if let Some(count) = self.counts.get(&mask) {
            return match i64::from(lane) < *count {
                true => f(self),
                false => self.scalar_constant(elem, 0),
            };
        }
        let on = self.lane_on(mask, lane);
        let zero = self.scalar_constant(elem, 0);
        let inside = self.b.create_block();
        let after = self.b.create_block();
        let result = self.b.append_block_param(after, scalar(elem));
        self.b
            .ins()
            .brif(on, inside, &[], after, &[BlockArg::Value(zero)]);
        self.b.switch_to_block(inside);
        let v = f(self);
        self.b.ins().jump(after, &[BlockArg::Value(v)]);
        self.b.switch_to_block(after);
        result
    }

    /// Each lane by a function, put together.
    fn by_lanes(
        &mut self,
        elem: Elem,
        mask: Option<Reg>,
        f: impl Fn(&mut Self, u8) -> Value,
    ) -> Value {
        if !self.wide() {
            return self.if_lane(mask, 0, elem, |e| f(e, 0));
        }
        let mut v = self.constant(elem, 0);
        for lane in 0..self.kernel.lanes as u8 {
            let x = self.if_lane(mask, lane, elem, |e| f(e, lane));
            v = self.b.ins().insertlane(v, x, lane);
        }
        v
    }

    pub fn vload(&mut self, dst: Reg, mem: Mem, addr: Addr, mask: Option<Reg>) {
        let at = self.address(addr);
        let elem = mem.elem();
        let v = if self.wide() && mask.is_none() && mem.bytes() == elem.bytes() {
            // As integers: a load of floats may become an operand of the comparison that reads it (`cmpps`), for which Cranelift
            // overlooks that the processor wants a multiple of 16 bytes then.
            let bits = self.b.ins().load(types::I32X4, flags(), at, addr.disp);
            self.cast(
                super::type_of(self.kernel.class(dst), self.kernel.lanes),
                bits,
            )
        } else {
            self.by_lanes(elem, mask, |e, lane| {
                let disp = i64::from(lane) * i64::from(mem.bytes());
                let (at, disp) = e.displaced(at, addr.disp, disp);
                e.load_lane(mem, at, disp)
            })
        };
        self.def(dst, v);
    }

    /// A displacement that may not fit the access any more.
    fn displaced(&mut self, at: Value, disp: i32, more: i64) -> (Value, i32) {
        match i32::try_from(i64::from(disp) + more) {
            Ok(d) => (at, d),
            Err(_) => {
                let more = self.imm(more);
                (self.b.ins().iadd(at, more), disp)
            }
        }
    }

    pub fn vstore(&mut self, src: Reg, mem: Mem, addr: Addr, mask: Option<Reg>) {
        let at = self.address(addr);
        let v = self.get(src);
        let elem = mem.elem();
        if self.wide() && mask.is_none() && mem.bytes() == elem.bytes() {
            self.b.ins().store(flags(), v, at, addr.disp);
            return;
        }
        for lane in 0..self.kernel.lanes as u8 {
            let disp = i64::from(lane) * i64::from(mem.bytes());
            self.if_lane(mask, lane, elem, |e| {
                let x = if e.wide() {
                    e.b.ins().extractlane(v, lane)
                } else {
                    v
                };
                let (at, disp) = e.displaced(at, addr.disp, disp);
                e.store_lane(x, mem, at, disp);
                x
            });
        }
    }

    pub fn vgather(&mut self, dst: Reg, mem: Mem, base: Reg, index: Reg, mask: Option<Reg>) {
        let base = self.get(base);
        let indices = self.get(index);
        let narrow = self.elem(index).bytes() == 4;
        let v = self.by_lanes(mem.elem(), mask, |e, lane| {
            let i = if e.wide() {
                e.b.ins().extractlane(indices, lane)
            } else {
                indices
            };
            let i = if narrow {
                e.b.ins().sextend(types::I64, i)
            } else {
                i
            };
            let size = e.imm(i64::from(mem.bytes()));
            let offset = e.b.ins().imul(i, size);
            let at = e.b.ins().iadd(base, offset);
            e.load_lane(mem, at, 0)
        });
        self.def(dst, v);
    }
}
